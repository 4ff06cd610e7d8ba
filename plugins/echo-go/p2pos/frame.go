package p2pos

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"google.golang.org/protobuf/proto"

	"p2pos.example/echo-go/p2pos/pb"
)

// The largest frame that we take. We tell no other in Hello, so it is the default [S-FRAME-2].
const frameBytesMax = 1 << 20

// dial connects to the daemon: for the session, and once more for each detached stream.
func dial() (net.Conn, error) {
	kind, where, _ := strings.Cut(os.Getenv("P2POS_ENDPOINT"), ":")
	if kind != "unix" && kind != "tcp" {
		return nil, fmt.Errorf("P2POS_ENDPOINT is neither unix: nor tcp: start this through p2pos, or by `p2pos plugins run`")
	}
	return net.Dial(kind, where)
}

// encode makes the bytes of one frame: four of length, then the message.
func encode(frame *pb.Frame) []byte {
	bytes, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 4), frame)
	if err != nil {
		panic(err) // only for text that is no UTF-8, which is the caller's mistake
	}
	binary.BigEndian.PutUint32(bytes, uint32(len(bytes)-4))
	return bytes
}

// readFrame reads exactly one frame, and not a byte more: behind Attached the raw stream begins [S-ATTACH-2].
func readFrame(from io.Reader) (*pb.Frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length == 0 || length > frameBytesMax {
		return nil, fmt.Errorf("a frame of %d bytes came, not 1 to %d [S-FRAME-2]", length, frameBytesMax)
	}
	bytes := make([]byte, length)
	if _, err := io.ReadFull(from, bytes); err != nil {
		return nil, err
	}
	frame := &pb.Frame{}
	if err := proto.Unmarshal(bytes, frame); err != nil {
		return nil, fmt.Errorf("a frame came that is no protobuf [S-MSG-4]: %w", err)
	}
	return frame, nil
}
