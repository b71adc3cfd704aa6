// Package negotiate takes a client from its first stream header to its session.
//
//	negotiate.go  finds the domain, and has the server dialled and checked before any byte of the
//	              client goes up
//	offer.go      offers what both can, and does STARTTLS
//	register.go   passes a request for a new account
//	login.go      takes the client's credentials; prove.go, a proof that it knows the password
//	admit.go      logs in to the server with them, and gives the client its place
//	restart.go    opens both streams anew; features.go, what the client may see of the server's
//
// Owned here: nothing outlives a login. A client belongs to the goroutine that serves it.
//
// It must not know what messages are.
package negotiate
