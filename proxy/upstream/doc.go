// Package upstream is the way to a server, and what it is held to.
//
//	locate.go    finds where the server is
//	dial.go      goes there, straight or through a SOCKS proxy
//	upstream.go  secures the connection, and reads the server's features
//	trust.go     decides whether it is the right one; dane.go, by DNS where that is asked
//	renewal.go   tells of certificates that end, and of announced changes
//	servers.go   what is known of servers
//
// Nothing of a client goes up before a certificate was pinned, vouched for or refused.
//
// Owned here: pins, refusals, where servers have sent their clients, and which certificates they
// have presented.
//
// It must not know OTR, clients or logins.
package upstream
