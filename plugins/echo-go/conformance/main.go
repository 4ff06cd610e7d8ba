// The agent in Go: obeys tools/conformance/ORDERS.md by the package p2pos. Silver.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"log"
	"math"
	"os"
	"strconv"
	"strings"

	"p2pos.example/echo-go/p2pos"
)

const prefix = "/p2pos/conformance"

// More than an order stream ever brings while nobody takes them.
const untakenMax = 256

type agent struct {
	session *p2pos.Session
	untaken map[string]chan *p2pos.Stream
}

func main() {
	session, err := p2pos.Connect("agent in Go")
	if err != nil {
		log.Print(err)
		os.Exit(1)
	}
	a := &agent{session, map[string]chan *p2pos.Stream{
		"stream": make(chan *p2pos.Stream, untakenMax), "detached": make(chan *p2pos.Stream, untakenMax),
	}}
	err = session.Register(
		p2pos.Service{Protocol: prefix + "/1", Serve: a.obey},
		p2pos.Service{Protocol: prefix + "-stream/1", Serve: a.keep("stream")},
		p2pos.Service{Protocol: prefix + "-refused/1", Serve: func(offer *p2pos.Offer) { offer.Reject("as ordered") }},
		p2pos.Service{Protocol: prefix + "-detached/1", Detached: true, Serve: a.keep("detached")},
	)
	if err != nil {
		log.Print(err)
		os.Exit(1)
	}
	session.Ready()
	if err := session.Wait(); err != nil {
		log.Print(err) // and still 0: ORDERS.md, "Start and end"
	}
}

func (a *agent) keep(kind string) func(*p2pos.Offer) {
	return func(offer *p2pos.Offer) {
		if stream, err := offer.Accept(); err == nil {
			a.untaken[kind] <- stream
		}
	}
}

func (a *agent) obey(offer *p2pos.Offer) {
	orders, err := offer.Accept()
	if err != nil {
		return
	}
	var subject *p2pos.Stream
	for lines := bufio.NewScanner(orders); lines.Scan(); {
		answer, err := a.do(strings.Split(lines.Text(), " "), &subject)
		if err != nil {
			answer = told(err)
		}
		if _, err := fmt.Fprintln(orders, answer); err != nil {
			return
		}
	}
	_ = orders.CloseWrite() // over otherwise, too
}

var errUnsupported = errors.New("unsupported")

// told gives the answer for what went wrong.
func told(err error) string {
	var refused *p2pos.Refused
	var ended *p2pos.Ended
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("error %d", refused.Code)
	case errors.As(err, &ended):
		return fmt.Sprintf("ended %d %d", ended.Code, ended.App)
	case errors.Is(err, errUnsupported):
		return "unsupported"
	}
	return "failed: " + err.Error()
}

func (a *agent) do(words []string, subject **p2pos.Stream) (string, error) {
	stream := *subject
	number := func(at int) int {
		n, _ := strconv.Atoi(words[at]) // the kit writes numbers
		return n
	}
	switch words[0] {
	case "hello":
		return "ok package p2pos of echo-go", nil
	case "take":
		kind := "stream"
		if len(words) > 1 {
			kind = words[1]
		}
		kept, ok := a.untaken[kind]
		if !ok {
			return "", errUnsupported
		}
		*subject = <-kept
		return fmt.Sprintf("ok %s %s", (*subject).Peer, (*subject).Protocol), nil
	case "open":
		return a.open(words, subject)
	case "write":
		_, err := stream.Write(pattern(number(1), number(2)))
		return fmt.Sprintf("ok %d", number(1)), err
	case "read":
		if words[1] == "end" {
			return read(stream, math.MaxInt64)
		}
		return read(stream, int64(number(1)))
	case "echo":
		count, err := io.Copy(stream, stream)
		if err == nil {
			err = stream.CloseWrite()
		}
		return fmt.Sprintf("ok %d", count), err
	case "finish":
		return "ok", stream.CloseWrite()
	case "reset":
		stream.Reset(uint32(number(1)))
		return "ok", nil
	case "stop":
		stream.Stop(uint32(number(1)))
		return "ok", nil
	case "closed":
		closed := stream.Closed()
		cause := []string{"ended", "finished", "local", "remote"}[closed.Cause]
		return fmt.Sprintf("ok %s %d %d %d %d", cause, closed.Code, closed.App, closed.In, closed.Out), nil
	}
	return "", errUnsupported
}

func (a *agent) open(words []string, subject **p2pos.Stream) (string, error) {
	open := a.session.Open
	if len(words) > 3 {
		if words[3] != "detached" {
			return "", errUnsupported
		}
		open = a.session.OpenDetached
	}
	stream, err := open(words[1], words[2])
	if err != nil {
		return "", err
	}
	*subject = stream
	return "ok " + stream.Protocol, nil
}

func pattern(count, seed int) []byte {
	bytes := make([]byte, count)
	for i := range bytes {
		bytes[i] = byte((seed + i) % 251)
	}
	return bytes
}

func read(stream *p2pos.Stream, count int64) (string, error) {
	sum := adler32.New()
	got, err := io.Copy(sum, io.LimitReader(stream, count))
	end := "more"
	if got < count {
		end = "fin"
	}
	return fmt.Sprintf("ok %d %d %s", got, sum.Sum32(), end), err
}
