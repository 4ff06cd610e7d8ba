#!/bin/sh
# Makes plugin.pb.go anew: after a change of plugin.proto, if you want its new fields. Nobody who builds needs this.
# Needs protoc, and protoc-gen-go v1.33.0 (go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.33.0).
set -eu
cd "$(dirname "$0")"
protoc --proto_path=../../../../plugin-protocol/proto --go_out=. --go_opt=paths=source_relative \
    --go_opt=Mplugin.proto=p2pos.example/echo-go/p2pos/pb plugin.proto
