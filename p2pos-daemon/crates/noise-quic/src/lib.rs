//! Noise IK as the cryptographic session of QUIC; the only holder of session keys.
