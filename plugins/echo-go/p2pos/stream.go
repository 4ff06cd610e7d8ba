package p2pos

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"p2pos.example/echo-go/p2pos/pb"
)

// What the daemon may send on a stream before we have read: the default of the protocol.
const windowBytes = 256 << 10

// ErrFinished is the answer to a Write behind CloseWrite.
var ErrFinished = errors.New("the stream was finished already")

// Closed is the daemon's last word about a stream.
type Closed struct {
	Cause, Code, App uint32 // Cause: 1 finished, 2 reset by us, 3 reset by the other side
	In, Out          uint64 // bytes
}

// Stream is one stream, an io.ReadWriter. One goroutine may read while another writes.
type Stream struct {
	Peer, Petname, Protocol string

	id      uint32
	session *Session
	changed *sync.Cond // of the session's lock; whatever stands below
	raw     net.Conn   // of a detached stream: its own socket

	writing error // why nothing more may be written; nil while it may
	reading error // why nothing more comes; nil while it may; io.EOF after fin
	credit  int64 // bytes that we may send [S-FLOW-1]
	arrived []byte
	read    int // bytes that the program has read since our last Window
	closed  *Closed
}

func (s *Session) newStream(id uint32) *Stream {
	stream := &Stream{
		id: id, session: s, changed: sync.NewCond(&s.lock), credit: int64(s.Welcome.Limits.GetStreamWindowBytes()),
	}
	s.streams[id] = stream
	return stream
}

// Read gives what has arrived. io.EOF: the other side has finished; *Ended: the stream did not end well.
func (t *Stream) Read(into []byte) (int, error) {
	if t.raw != nil {
		count, err := t.raw.Read(into)
		return count, t.truth(err, &t.reading)
	}
	t.session.lock.Lock()
	defer t.session.lock.Unlock()
	for len(t.arrived) == 0 && t.reading == nil && len(into) > 0 {
		t.changed.Wait()
	}
	if len(t.arrived) == 0 && len(into) > 0 {
		return 0, t.reading
	}
	count := copy(into, t.arrived)
	t.arrived = t.arrived[count:]
	t.read += count
	// Credit is for what was read, not for what has arrived: so a reader that stops makes its writer stop. It is given at half of the
	// window, so that the writer need not wait for it; and to nobody who writes no more [S-FLOW-4].
	if t.read >= windowBytes/2 && t.reading == nil {
		t.session.send(&pb.Frame{Body: &pb.Frame_Window{Window: &pb.Window{Stream: t.id, Bytes: uint32(t.read)}}})
		t.read = 0
	}
	return count, nil
}

// Write hands over all bytes, and waits while there is no credit. *Ended: nobody reads them.
func (t *Stream) Write(bytes []byte) (int, error) {
	if t.raw != nil {
		count, err := t.raw.Write(bytes)
		return count, t.truth(err, &t.writing)
	}
	s := t.session
	s.lock.Lock()
	defer s.lock.Unlock()
	for rest := bytes; len(rest) > 0; {
		if !t.waitToWrite() {
			return len(bytes) - len(rest), t.writing
		}
		count := len(rest)
		if max := int(s.Welcome.Limits.GetDataBytesMax()); count > max {
			count = max
		}
		if int64(count) > t.credit {
			count = int(t.credit)
		}
		t.credit -= int64(count)
		s.send(&pb.Frame{Body: &pb.Frame_Data{Data: &pb.Data{Stream: t.id, Payload: rest[:count]}}})
		rest = rest[count:]
	}
	return len(bytes), nil
}

// waitToWrite waits for credit and for room. False: nothing may be written any more.
func (t *Stream) waitToWrite() bool {
	for t.writing == nil {
		switch {
		case t.credit <= 0:
			t.changed.Wait()
		case t.session.queued > dataBytesQueuedMax:
			t.session.room.Wait()
		default:
			return true
		}
	}
	return false
}

// CloseWrite says that we write no more (fin). Reading goes on.
func (t *Stream) CloseWrite() error {
	t.session.lock.Lock()
	defer t.session.lock.Unlock()
	if t.writing != nil {
		return t.writing
	}
	t.writing = ErrFinished
	if half, ok := t.raw.(interface{ CloseWrite() error }); ok {
		defer t.closeRaw()
		return half.CloseWrite()
	}
	t.session.send(&pb.Frame{Body: &pb.Frame_Data{Data: &pb.Data{Stream: t.id, Fin: true}}})
	return nil
}

// Stop says that we read no more. Writing goes on. Not for detached streams [S-ATTACH-4].
func (t *Stream) Stop(app uint32) {
	t.session.lock.Lock()
	defer t.session.lock.Unlock()
	if t.reading != nil || t.raw != nil {
		return
	}
	t.reading, t.arrived = &Ended{400, app}, nil
	t.session.send(&pb.Frame{Body: &pb.Frame_StopSending{StopSending: &pb.StopSending{Stream: t.id, Code: 400, AppCode: app}}})
	t.changed.Broadcast()
}

// Reset ends both directions at once; the other program gets the number. Harmless for a stream that is over.
func (t *Stream) Reset(app uint32) {
	t.session.lock.Lock()
	defer t.session.lock.Unlock()
	if t.closed != nil || t.raw == nil && t.reading != nil && t.writing != nil {
		return // StreamClosed has come or is on its way: nothing may be said any more
	}
	t.session.send(&pb.Frame{Body: &pb.Frame_Reset_{Reset_: &pb.Reset{Stream: t.id, Code: 400, AppCode: app}}})
	t.abort(&Ended{400, app})
}

// Closed waits for the daemon's last word.
func (t *Stream) Closed() Closed {
	t.session.lock.Lock()
	defer t.session.lock.Unlock()
	for t.closed == nil {
		t.changed.Wait()
	}
	return *t.closed
}

// data takes a frame of the other side. The lock is held, as for all below.
func (t *Stream) data(data *pb.Data) {
	if t.reading != nil {
		return // it was on its way when we stopped reading [S-STREAM-6]
	}
	t.arrived = append(t.arrived, data.Payload...)
	if data.Fin {
		t.reading = io.EOF
	}
	t.changed.Broadcast()
}

// stopWriting: the other side reads no more.
func (t *Stream) stopWriting(why *Ended) {
	if t.writing == nil {
		t.writing = why
	}
	t.changed.Broadcast()
	t.session.room.Broadcast()
}

// abort ends both directions. What had arrived is given up, except after a whole, finished direction.
func (t *Stream) abort(why *Ended) {
	t.stopWriting(why)
	if t.reading == nil {
		t.reading, t.arrived = why, nil
	}
	if t.raw != nil {
		// Wakes whoever waits at the socket. It stays open until StreamClosed: the session's Reset and the socket's end are on different
		// ways, and a socket that is closed first reads as a good end [S-ATTACH-3].
		_ = t.raw.SetDeadline(time.Unix(1, 0))
	}
}

// close: the stream is over.
func (t *Stream) close(word *pb.StreamClosed) {
	t.closed = &Closed{uint32(word.Cause), word.Code, word.AppCode, word.BytesIn, word.BytesOut}
	if word.Cause != pb.StreamClosed_FINISHED {
		t.abort(&Ended{word.Code, word.AppCode})
	}
	if t.raw != nil {
		t.closeRaw()
	}
	t.changed.Broadcast()
}

// closeRaw closes a detached stream's socket once nobody needs it: both sides have finished, or the daemon knows of the reset.
func (t *Stream) closeRaw() {
	_, isReset := t.reading.(*Ended)
	if t.writing != nil && t.reading != nil && (!isReset || t.closed != nil) {
		_ = t.raw.Close() // a second time, too
	}
}

// truth tells how a detached stream really ended, where the socket only says that it did. The end of reading is noted.
func (t *Stream) truth(err error, side *error) error {
	if err == nil {
		return nil
	}
	t.session.lock.Lock()
	defer t.session.lock.Unlock()
	if *side == nil && err == io.EOF {
		*side = io.EOF
		t.closeRaw()
	}
	if *side != nil {
		return *side
	}
	return err
}
