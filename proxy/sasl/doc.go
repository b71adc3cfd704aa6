// Package sasl is who logs in, on both legs.
//
//	login.go      logs in to a server with the strongest mechanism both have; failed.go, in which
//	              words it fails
//	scram.go      proves a password by keys of it (RFC 5802); ownkeys.go, keys of our own
//	strength.go   keeps how strongly accounts have logged in, for nothing weaker is used later
//	enrol.go      keeps what enrolled accounts are verified by; enrolling.go, how one comes to be
//	              enrolled
//	offers.go     what clients are offered here
//	verifier.go   recognises a password, without keeping it
//	strangers.go  who has logged in with another one
//	guesses.go    who tries wrong ones, and how fast
//
// Owned here: the login files of each account, under one lock for all; which passwords are known
// in this run; who waits to be confirmed. No password outlives its login.
//
// It must not know listeners, nor the stanzas of a session.
package sasl
