// Package listen is where clients come in.
//
//	listen.go     accepts at all addresses, as far as the gate lets somebody in
//	gate.go       how many may come, and from where
//	caller.go     tells by the first byte how a client speaks: as a stream or over TLS,
//	websocket.go  over a WebSocket,
//	socks.go      or by SOCKS, which leads here
//	peers_*.go    whose a connection from this machine is
//	memory.go     what the process holds
//
// Owned here: the listeners, who is in, and how many have come lately. A Caller belongs to the
// goroutine that serves it.
//
// It must not know accounts, servers or sessions: who has a client log in is given to it.
package listen
