//! The bytes that travel in cases, and their sum (ORDERS.md, "Bytes").

/// The pattern's period: prime, so that no piece of a usual size begins where another one does.
const PERIOD: usize = 251;

/// Byte number `at` of the pattern with this seed.
#[must_use]
pub fn byte(seed: usize, at: usize) -> u8 {
    u8::try_from((seed + at) % PERIOD).unwrap_or_default()
}

/// The first bytes of the pattern.
#[must_use]
pub fn bytes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|at| byte(seed, at)).collect()
}

/// Adler-32.
#[must_use]
pub fn sum(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_orders_md() {
        let orders = include_str!("../ORDERS.md");
        assert_eq!(sum([]), 1);
        assert!(orders.contains(&format!("pattern with seed 7 it is {}.", sum(bytes(1000, 7)))));
    }
}
