// Package sasl is who logs in, on both legs.
//
//	login.go      logs in to a server with the strongest mechanism both have
//	scram.go      proves a password by keys of it (RFC 5802); ownkeys.go, keys of our own
//	enrol.go      keeps how strongly accounts have logged in, and what enrolled ones are verified
//	              by; enrolling.go, how an account comes to be enrolled
//	verifier.go   recognises a password, without keeping it
//	strangers.go  who has logged in with another one
//	guesses.go    who tries wrong ones, and how fast
//
// Owned here: the login files of each account, under one lock for all; which passwords are known
// in this run; who waits to be confirmed. No password outlives its login.
//
// It must not know listeners, nor the stanzas of a session.
package sasl
