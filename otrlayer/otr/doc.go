// Package otr is the Off-the-Record Messaging protocol, versions 3 and 2, for one
// pair of people: bytes in, bytes and events out. It follows "Off-the-Record
// Messaging Protocol version 3" and "version 2" (otr.cypherpunks.ca) and, where
// those are silent, libotr 4.1, which nearly everybody runs.
//
// The package does no I/O, starts no goroutine, reads no clock and no randomness
// but what it is given, and keeps no global state but constants. It knows nothing of
// XMPP, of people's decisions or of messages that wait: it never keeps a text it has
// handed over, and never resends one.
//
// In the order a conversation goes:
//
//	wire.go          what kind of text a message is, and its fields
//	fragment.go      messages in pieces
//	conversation.go  Conversation: which exchange or session a message belongs to
//	exchange.go      the authenticated key exchange, beside any live session
//	session.go       data messages: keys that move on, old MAC keys revealed
//	smp.go           the Socialist Millionaires' Protocol: do two people know the same secret
//	group.go         arithmetic in the Diffie-Hellman group
//	dsa.go           long-term keys and signatures
//	parameters.go    the primes of a new long-term key
//	keyfile.go       libotr's file of private keys
//	records.go       libotr's files of fingerprints and instance tags
//
// Nothing a peer or a server sends changes any state before it is authenticated,
// other than the bounded room for exchanges under way and fragments.
package otr
