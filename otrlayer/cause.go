package otrlayer

// A Cause says why a message of the person's was not sent. It is a closed set:
// error stanzas, notices and metrics all draw from it.
type Cause string

// The causes.
const (
	CauseNone        Cause = ""
	CauseExpired     Cause = "expired"     // nobody answered within hold.for
	CauseQueueFull   Cause = "queue-full"  // more messages wait than hold allows
	CauseMemory      Cause = "memory"      // the machine has no memory for more that waits
	CauseFinished    Cause = "finished"    // the contact ended the private conversation
	CauseKeyChanged  Cause = "key-changed" // the contact's key is another one than before
	CauseUnverified  Cause = "unverified"  // require-verified, and nobody has verified the key
	CauseNoKey       Cause = "no-key"      // our own key is not to be had
	CauseEngine      Cause = "engine"      // encrypting failed
	CauseUnprotected Cause = "unprotected" // content that OTR cannot protect
	CauseShutdown    Cause = "shutdown"    // the proxy ends
	CauseDropped     Cause = "dropped"     // the person took it back
	CauseBounced     Cause = "bounced"     // the contact or its server does not exist
	CauseOwnOTR      Cause = "client-otr"  // the client speaks OTR itself
	CauseTooLarge    Cause = "too-large"   // encrypted, it would be more than a server takes
	CauseUpstream    Cause = "upstream"    // the connection to the server is gone
	CauseUncertain   Cause = "uncertain"   // the connection was lost before the server said that it had taken the message
	CauseStranger    Cause = "stranger"    // the client logged in with a password that is not the one known here
	CauseUnread      Cause = "unread"      // the contact's program said that it could not read the message
	CauseRoom        Cause = "room"        // the address is a room, where OTR does not reach
	CauseNotInRoom   Cause = "not-in-room" // it is for somebody in a room that the client is not in
)

// Causes is the closed set, for metrics that exist from the start.
var Causes = []Cause{CauseExpired, CauseQueueFull, CauseMemory, CauseFinished, CauseKeyChanged, CauseUnverified, CauseNoKey,
	CauseEngine, CauseUnprotected, CauseShutdown, CauseDropped, CauseBounced, CauseOwnOTR, CauseTooLarge, CauseUpstream, CauseUncertain, CauseUnread, CauseStranger, CauseRoom, CauseNotInRoom}

// ruled reports whether it is a rule of the household that stops a message.
func (c Cause) ruled() bool {
	switch c {
	case CauseExpired, CauseUnverified, CauseUnprotected, CauseOwnOTR:
		return true
	}
	return false
}
