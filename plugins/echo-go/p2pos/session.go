// Package p2pos speaks the p2pOS plugin protocol, version 1, with the standard library and the protobuf runtime.
//
// Three goroutines serve a session: one reads frames, one writes them, one runs down when nothing is heard; each stream that a peer opens
// gets one more, in which the program's own function runs. All state stands under one lock. Reading never waits for writing: the reader
// puts its answers into the outbox and goes on [S-FRAME-6].
//
// Names like [S-FLOW-3] are rules of plugin-protocol/SPEC.md. Left out, as a small program needs none of it: datagrams, events, contacts.
package p2pos

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"p2pos.example/echo-go/p2pos/pb"
)

const (
	// Data waits for the writer above this, so that one busy stream does not fill the memory. Less than a few frames would cost speed.
	dataBytesQueuedMax = 256 << 10
	// Answers wait for nobody; a daemon that asks and does not read is at fault, and this is where we stop [S-FRAME-6].
	bytesQueuedMax = 2 << 20
	// After so much silence we ask, after three times as much the daemon is taken for dead [S-PING-1].
	pingAfter = 15 * time.Second
	// How long Close waits for what is still to be written.
	closeMax = 2 * time.Second
)

// Refused is the daemon's bad answer to a request. Code is of section 10 of SPEC.md.
type Refused struct {
	Code          uint32
	Message, Hint string
}

func (r *Refused) Error() string {
	return fmt.Sprintf("%d: %s (%s)", r.Code, r.Message, r.Hint)
}

// Ended says how a stream ended, if not well: 400 with the other program's own number in App, 403 when the other plugin is gone, 404
// when the path is lost, 105 when our own session is over.
type Ended struct{ Code, App uint32 }

func (e *Ended) Error() string {
	if e.Code == 400 {
		return fmt.Sprintf("the other side ended the stream with its number %d", e.App)
	}
	return fmt.Sprintf("the stream ended with code %d", e.Code)
}

var sessionOver = &Ended{Code: 105}

// Service is a protocol that we serve. Serve runs in a goroutine of its own for each stream that a peer opens.
type Service struct {
	Protocol string
	Detached bool // streams get a socket of their own
	Anyone   bool // not only contacts
	Serve    func(*Offer)
}

// Session is the connection to the daemon.
type Session struct {
	// What the daemon said at the beginning; its limits hold [S-LIMIT-1].
	Welcome *pb.Welcome

	conn  net.Conn
	over  chan struct{} // closed when the session has ended
	ended chan struct{} // closed when all was written that could be

	lock     sync.Mutex
	why      error // how it ended; nil while it lives, errDone for a good end
	heard    time.Time
	room     *sync.Cond // the outbox changed
	outbox   [][]byte
	queued   int // bytes in the outbox
	rid      uint32
	id       uint32 // of the stream that we opened last
	waiting  map[uint32]chan *pb.Frame
	services map[string]Service
	streams  map[uint32]*Stream
}

var errDone = errors.New("the session was ended in good order")

// Connect finds the daemon, says Hello and waits for Welcome.
func Connect(sdk string) (*Session, error) {
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	hello := &pb.Hello{
		Magic: "p2pOS", MinVersion: 1, MaxVersion: 1, Sdk: sdk,
		Auth:              &pb.Hello_LaunchToken{LaunchToken: os.Getenv("P2POS_TOKEN")},
		StreamWindowBytes: windowBytes,
	}
	if _, err := conn.Write(encode(&pb.Frame{Rid: 1, Body: &pb.Frame_Hello{Hello: hello}})); err != nil {
		return nil, err
	}
	frames := bufio.NewReaderSize(conn, 64<<10)
	first, err := readFrame(frames)
	if err != nil {
		return nil, fmt.Errorf("no answer to Hello: %w", err)
	}
	if refused := first.GetRefused(); refused != nil {
		return nil, &Refused{refused.Code, refused.Message, refused.Hint}
	}
	if first.GetWelcome() == nil {
		return nil, fmt.Errorf("the answer to Hello is no Welcome but %T", first.Body)
	}
	s := &Session{
		Welcome: first.GetWelcome(), conn: conn, over: make(chan struct{}), ended: make(chan struct{}),
		heard: time.Now(), rid: 1, waiting: map[uint32]chan *pb.Frame{}, services: map[string]Service{}, streams: map[uint32]*Stream{},
	}
	s.room = sync.NewCond(&s.lock)
	go s.read(frames)
	go s.write()
	go s.watch()
	if os.Getenv("P2POS_EXIT_ON_STDIN_CLOSE") == "1" {
		go s.endWithStdin()
	}
	return s, nil
}

// Register serves these protocols from now on: all of them, or none if it fails.
func (s *Session) Register(services ...Service) error {
	register := &pb.Register{}
	s.lock.Lock()
	for _, service := range services {
		protocol := &pb.Protocol{Name: service.Protocol, Kind: pb.Kind_STREAM}
		if service.Detached {
			protocol.Attachment = pb.Attachment_SOCKET
		}
		if service.Anyone {
			protocol.Trust = pb.Trust_ANYONE
		}
		register.Protocols = append(register.Protocols, protocol)
		s.services[service.Protocol] = service // before the answer: the first Incoming may follow it at once
	}
	_, answer := s.ask(&pb.Frame{Body: &pb.Frame_Register{Register: register}})
	s.lock.Unlock()
	_, err := s.answer(answer)
	return err
}

// Ready says that start-up is over.
func (s *Session) Ready() {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.send(&pb.Frame{Body: &pb.Frame_Ready{Ready: &pb.Ready{}}})
}

// Wait returns when the session is over: nil if the daemon asked for it or is gone, otherwise what was wrong.
func (s *Session) Wait() error {
	<-s.over
	<-s.ended
	if errors.Is(s.why, errDone) {
		return nil
	}
	return s.why
}

// Close ends the session. All streams end with it; what Write has taken is still written.
func (s *Session) Close() {
	s.end(errDone)
	<-s.ended
}

// send puts a frame into the outbox. The lock is held, so the order of frames is the order of what was decided.
func (s *Session) send(frame *pb.Frame) {
	if s.why != nil {
		return
	}
	bytes := encode(frame)
	s.outbox = append(s.outbox, bytes)
	s.queued += len(bytes)
	s.room.Broadcast()
}

// ask sends a request of ours under a rid that is not in use [S-REQ-1]. The lock is held.
func (s *Session) ask(request *pb.Frame) (uint32, chan *pb.Frame) {
	answer := make(chan *pb.Frame, 1)
	if s.why != nil {
		close(answer)
		return 0, answer
	}
	s.rid++
	request.Rid = s.rid
	s.waiting[s.rid] = answer
	s.send(request)
	return s.rid, answer
}

// answer waits for what came back. When the session ends, that is the answer: 105 [S-REQ-3].
func (s *Session) answer(answer chan *pb.Frame) (*pb.Frame, error) {
	frame, ok := <-answer
	if !ok {
		return nil, sessionOver
	}
	if bad := frame.GetError(); bad != nil {
		return nil, &Refused{bad.Code, bad.Message, bad.Hint}
	}
	return frame, nil
}

// read takes frames until the end of the connection, which is the end of the daemon, however it came [S-END-1].
func (s *Session) read(frames io.Reader) {
	for {
		frame, err := readFrame(frames)
		switch {
		case errors.Is(err, io.EOF):
			err = errDone
		case err == nil:
			err = s.handle(frame)
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

// handle does what one frame asks for. An error ends the session.
func (s *Session) handle(frame *pb.Frame) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.heard = time.Now()
	if s.why != nil {
		return nil // it came while we were ending
	}
	if s.queued > bytesQueuedMax {
		return fmt.Errorf("the daemon does not read: %d bytes wait for it [S-FRAME-6]", s.queued)
	}
	switch body := frame.Body.(type) {
	case *pb.Frame_Data:
		if stream := s.streams[body.Data.Stream]; stream != nil { // else it crossed the stream's end [S-STREAM-9]
			stream.data(body.Data)
		}
	case *pb.Frame_Window:
		if stream := s.streams[body.Window.Stream]; stream != nil {
			stream.credit += int64(body.Window.Bytes)
			stream.changed.Broadcast()
		}
	case *pb.Frame_StopSending:
		if stream := s.streams[body.StopSending.Stream]; stream != nil {
			stream.stopWriting(&Ended{body.StopSending.Code, body.StopSending.AppCode})
		}
	case *pb.Frame_Reset_:
		if stream := s.streams[body.Reset_.Stream]; stream != nil {
			stream.abort(&Ended{body.Reset_.Code, body.Reset_.AppCode})
		}
	case *pb.Frame_StreamClosed:
		if stream := s.streams[body.StreamClosed.Stream]; stream != nil {
			stream.close(body.StreamClosed)
			delete(s.streams, body.StreamClosed.Stream)
		}
	case *pb.Frame_Incoming:
		s.offer(frame.Rid, body.Incoming)
	case *pb.Frame_Ping:
		s.send(&pb.Frame{Rid: frame.Rid, Body: &pb.Frame_Pong{Pong: &pb.Pong{Nonce: body.Ping.Nonce}}})
	case *pb.Frame_Shutdown:
		return errDone
	case *pb.Frame_Error:
		if frame.Rid != 0 {
			s.settle(frame)
		} else if body.Error.Code/100 == 1 { // about the connection, and the last that is said [S-END-2]
			return &Refused{body.Error.Code, body.Error.Message, body.Error.Hint}
		}
	case *pb.Frame_Opened, *pb.Frame_Done, *pb.Frame_Contacts:
		s.settle(frame)
	case nil:
		if frame.Rid != 0 { // a request of a newer daemon; without a rid it is a notice, and ignored [S-MSG-6]
			s.send(&pb.Frame{Rid: frame.Rid, Body: &pb.Frame_Error{Error: &pb.Error{Code: 201, Name: "UNKNOWN_METHOD"}}})
		}
	}
	return nil
}

// settle hands an answer to whoever waits. Nobody may: it was given up [S-REQ-4].
func (s *Session) settle(frame *pb.Frame) {
	if answer, ok := s.waiting[frame.Rid]; ok {
		delete(s.waiting, frame.Rid)
		answer <- frame
	}
}

// write empties the outbox, and holds no lock while the socket makes it wait.
func (s *Session) write() {
	defer close(s.ended)
	defer s.conn.Close()
	for {
		s.lock.Lock()
		for len(s.outbox) == 0 && s.why == nil {
			s.room.Wait()
		}
		frames := net.Buffers(s.outbox)
		s.outbox = nil
		s.lock.Unlock()
		if len(frames) == 0 {
			return
		}
		written, err := frames.WriteTo(s.conn)
		s.lock.Lock()
		s.queued -= int(written)
		s.room.Broadcast()
		s.lock.Unlock()
		if err != nil {
			s.end(err)
			return
		}
	}
}

// watch asks after silence, and ends the session when the daemon does not answer [S-PING-1].
func (s *Session) watch() {
	for tick := time.NewTicker(pingAfter); ; {
		select {
		case <-s.over:
			tick.Stop()
			return
		case <-tick.C:
		}
		s.lock.Lock()
		silence := time.Since(s.heard)
		if silence >= pingAfter {
			s.send(&pb.Frame{Rid: 0, Body: &pb.Frame_Ping{Ping: &pb.Ping{Nonce: 1}}})
		}
		s.lock.Unlock()
		if silence > 3*pingAfter {
			s.end(fmt.Errorf("nothing came from the daemon for %v", silence.Round(time.Second)))
		}
	}
}

// endWithStdin ends us when our daemon is gone, however it went [S-END-3].
func (s *Session) endWithStdin() {
	_, _ = io.Copy(io.Discard, os.Stdin) // whatever ends it
	s.end(errDone)
}

// end ends the session once, and with it all that waits [S-END-1].
func (s *Session) end(why error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.why != nil {
		return
	}
	s.why = why
	for _, stream := range s.streams {
		stream.close(&pb.StreamClosed{Cause: pb.StreamClosed_RESET_REMOTE, Code: sessionOver.Code})
	}
	for _, answer := range s.waiting {
		close(answer)
	}
	s.streams, s.waiting = nil, nil
	close(s.over)
	s.room.Broadcast()
	_ = s.conn.SetWriteDeadline(time.Now().Add(closeMax)) // fails only for a closed socket
}
