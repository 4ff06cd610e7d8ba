package p2pos

import (
	"errors"
	"fmt"
	"net"

	"p2pos.example/echo-go/p2pos/pb"
)

// Offer is a stream that a peer wants to open: Accept it or Reject it, within 10 s.
type Offer struct {
	Peer, Petname, Protocol string // Petname: the user's own name for them; empty if they are no contact

	rid     uint32
	stream  *Stream
	ticket  []byte
	settled bool
}

var errSettled = errors.New("the offer was accepted or rejected before")

// offer starts the function of the protocol. The stream stands already: Data may come before we have accepted [S-STREAM-3].
func (s *Session) offer(rid uint32, incoming *pb.Incoming) {
	stream := s.newStream(incoming.Stream)
	stream.Peer, stream.Petname, stream.Protocol = incoming.Peer, incoming.Petname, incoming.Protocol
	offer := &Offer{incoming.Peer, incoming.Petname, incoming.Protocol, rid, stream, incoming.Ticket, false}
	service, ok := s.services[incoming.Protocol]
	go func() {
		if ok {
			service.Serve(offer)
		}
		offer.Reject("nobody took it")
	}()
}

// Accept takes the stream. It fails if the peer has given it up meanwhile.
func (o *Offer) Accept() (*Stream, error) {
	s := o.stream.session
	s.lock.Lock()
	if ended, ok := o.stream.reading.(*Ended); ok {
		s.lock.Unlock()
		return nil, ended
	}
	if o.settled {
		s.lock.Unlock()
		return nil, errSettled
	}
	o.settled = true
	s.send(&pb.Frame{Rid: o.rid, Body: &pb.Frame_Accept{Accept: &pb.Accept{Stream: o.stream.id}}})
	s.lock.Unlock()
	if len(o.ticket) == 0 {
		return o.stream, nil
	}
	if err := o.stream.attach(o.ticket); err != nil {
		return nil, err
	}
	return o.stream, nil
}

// Reject refuses the stream; the peer's program gets 305. Harmless behind Accept.
func (o *Offer) Reject(reason string) {
	s := o.stream.session
	s.lock.Lock()
	defer s.lock.Unlock()
	if _, ended := o.stream.reading.(*Ended); ended || o.settled {
		return
	}
	o.settled = true
	s.send(&pb.Frame{Rid: o.rid, Body: &pb.Frame_Reject{Reject: &pb.Reject{Stream: o.stream.id, Code: 305, Reason: reason}}})
	delete(s.streams, o.stream.id) // no StreamClosed follows [S-STREAM-10]
}

// Open opens the first of these protocols that the peer serves. *Refused: why not.
func (s *Session) Open(peer string, protocols ...string) (*Stream, error) {
	return s.open(&pb.Open{Peer: peer, Protocols: protocols, Kind: pb.Kind_STREAM})
}

// OpenDetached does the same, and gives the stream a socket of its own.
func (s *Session) OpenDetached(peer string, protocols ...string) (*Stream, error) {
	return s.open(&pb.Open{Peer: peer, Protocols: protocols, Kind: pb.Kind_STREAM, Attachment: pb.Attachment_SOCKET})
}

func (s *Session) open(open *pb.Open) (*Stream, error) {
	s.lock.Lock()
	if s.why != nil {
		s.lock.Unlock()
		return nil, sessionOver
	}
	// Ours are odd, each higher than the one before, on the wire too: so the id is taken under the lock that orders the frames.
	s.id = (s.id + 1) | 1
	open.Stream = s.id
	stream := s.newStream(open.Stream) // Data may come right behind Opened
	stream.Peer = open.Peer
	_, answer := s.ask(&pb.Frame{Body: &pb.Frame_Open{Open: open}})
	s.lock.Unlock()
	frame, err := s.answer(answer)
	if err != nil {
		s.lock.Lock()
		delete(s.streams, open.Stream) // no StreamClosed follows [S-STREAM-10]
		s.lock.Unlock()
		return nil, err
	}
	stream.Protocol = frame.GetOpened().GetProtocol()
	if ticket := frame.GetOpened().GetTicket(); len(ticket) != 0 {
		if err := stream.attach(ticket); err != nil {
			return nil, err
		}
	}
	return stream, nil
}

// attach connects the stream's own socket. When it cannot, the stream is reset.
func (t *Stream) attach(ticket []byte) error {
	raw, err := dial()
	if err == nil {
		err = sayAttach(raw, ticket)
	}
	if err != nil {
		t.Reset(0)
		return fmt.Errorf("the socket of a stream: %w", err)
	}
	t.session.lock.Lock()
	defer t.session.lock.Unlock()
	t.raw = raw
	if ended, ok := t.reading.(*Ended); ok { // while we were connecting
		_ = raw.Close()
		return ended
	}
	return nil
}

func sayAttach(raw net.Conn, ticket []byte) error {
	_, err := raw.Write(encode(&pb.Frame{Rid: 1, Body: &pb.Frame_Attach{Attach: &pb.Attach{Ticket: ticket}}}))
	if err != nil {
		return err
	}
	answer, err := readFrame(raw)
	if err != nil {
		return err
	}
	if refused := answer.GetRefused(); refused != nil {
		return &Refused{refused.Code, refused.Message, refused.Hint}
	}
	if answer.GetAttached() == nil {
		return fmt.Errorf("the answer to Attach is no Attached but %T", answer.Body)
	}
	return nil
}
