// Package relay is the sessions: it passes stanzas between clients and servers, as the rules say.
//
//	relay.go      all sessions, and what they share
//	session.go    one of them: two readers, each of which feeds the other leg's writer
//
// The way out, of what a client sends:
//
//	outgoing.go   a message, up to the account's verdict and the one place that writes <message>
//	guard.go      presence and requests
//	returned.go   what does not leave comes back, and is seen
//
// The way in, of what a server sends:
//
//	incoming.go   a message, presence, a request
//	copies.go     a carbon, or a result of an archive
//	requests.go   an answer: only to what was asked
//	rooms.go      what is a room's, and what is a contact's
//	roster.go     who is on the list of contacts
//
// Beside the way:
//
//	acks.go, alive.go    what the server has taken, and whether it is still there
//	devices.go           the account's other clients
//	strangers.go         who has logged in with another password than the one known here
//	service.go, adhoc.go the contact that is the proxy
//	linger.go, pace.go   who leaves at once, and who sends too fast
//
// Owned here: which sessions there are, under the Relay's lock; what a session knows, at whose
// fields it is said which goroutine or lock has them. Conversations are otrlayer's.
package relay
