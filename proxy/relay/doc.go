// Package relay is the sessions: it passes stanzas between clients and servers, as the rules say.
//
//	relay.go      all sessions, and what they share
//	session.go    one of them: two readers, each of which feeds the other leg's writer
//
// The way out, of what a client sends:
//
//	outgoing.go      a message, up to the account's verdict and the one place that writes <message>
//	out_presence.go  presence; out_request.go, a request; guard.go, what holds for both
//	returned.go      what does not leave comes back, and is seen
//	composed.go      what is said of what stood beside a text
//
// The way in, of what a server sends:
//
//	incoming.go      a message, up to the client
//	in_presence.go   presence; in_request.go, a request or an answer
//	expected.go      whether encryption is expected from an address
//	copies.go        a carbon, or a result of an archive
//	bounced.go       a message that came back
//	unread.go        what cannot be read any more
//	notice.go        what the proxy says itself
//
// What a session knows, to decide by:
//
//	requests.go      what the client has asked
//	rooms.go         what is a room's, and what is a contact's
//	roster.go        who is on the list of contacts
//	rule.go          the rule asked for last
//
// Beside the way:
//
//	acks.go, alive.go        what the server has taken, and whether it is still there
//	ending.go, linger.go     how a session ends, and why it may stay
//	devices.go               the account's other clients
//	strangers.go             who has logged in with another password than the one known here
//	password.go              a password that a client changes
//	commands.go              lines for the proxy in any chat; atcontact.go, what the contact that is
//	                         the proxy (service) asks of a session; arrived.go, what a client hears first
//	pace.go, turnedaway.go   who sends too fast, and who could not log in
//
// Owned here: which sessions there are, under the Relay's lock; what a session knows, at whose
// fields it is said which goroutine or lock has them. Conversations are otrlayer's.
package relay
