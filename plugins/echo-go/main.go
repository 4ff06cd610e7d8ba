// Serves /echo-go/1: every stream gets back what it sends. The package p2pos beside this file speaks the protocol; README.md walks through.
package main

import (
	"errors"
	"io"
	"log"
	"os"

	"p2pos.example/echo-go/p2pos"
)

// What the other program is told when a stream goes wrong here. The number is ours alone; /echo-go/1 knows this one.
const brokenHere = 1

func main() {
	log.SetFlags(0) // `p2pos plugins logs echo-go` has times of its own
	session, err := p2pos.Connect("echo-go 0.1")
	if err != nil {
		log.Print(err)
		os.Exit(1)
	}
	err = session.Register(p2pos.Service{Protocol: "/echo-go/1", Serve: serve})
	if err != nil {
		log.Print(err)
		os.Exit(1)
	}
	session.Ready()
	if err := session.Wait(); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

func serve(offer *p2pos.Offer) {
	stream, err := offer.Accept()
	if err != nil {
		return // the peer was faster with its end
	}
	_, err = io.Copy(stream, stream) // Write waits for credit, so we read no faster than the peer does: nothing piles up
	if err == nil {
		err = stream.CloseWrite()
	}
	var ended *p2pos.Ended
	if errors.As(err, &ended) {
		stream.Reset(ended.App) // "I read no more" makes no sense of what an echo would read; else it is over already
	} else if err != nil {
		stream.Reset(brokenHere)
	}
}
