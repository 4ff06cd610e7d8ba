"""Code that protoc made from plugin-protocol/proto/plugin.proto; needs the protobuf package (`pip install p2pos[protobuf]`).

The SDK itself does not use it: tests compare the SDK's codec with it, and tools may like its objects.
Made by `tests/generate_pb.py`; never edited.
"""
