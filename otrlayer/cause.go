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

// Because adds to a sentence the reason that the household gives for its rule, if any.
func Because(sentence, reason string) string {
	if reason == "" {
		return sentence
	}
	return sentence + " The reason for this rule: " + reason
}

// Why is a cause's sentence, with the household's own reason where a rule is the cause.
func (a *Account) Why(c Cause, contact string) string {
	reason := a.settings().Reason
	if !c.ruled() || reason == nil {
		return c.Sentence(contact)
	}
	return Because(c.Sentence(contact), reason(contact))
}

// Sentence tells a person what happened and what to do now.
func (c Cause) Sentence(contact string) string {
	switch c {
	case CauseExpired:
		return "Not sent: " + contact + " did not answer with OTR, so the message could not be encrypted. Nothing of it left this machine. Try again when they are online with a client that has OTR."
	case CauseQueueFull:
		return "Not sent: too many messages already wait for a private conversation with " + contact + ". Wait for it, or take them back with !otr drop."
	case CauseMemory:
		return "Not sent: otrproxy has no memory left for messages that wait for a private conversation. Try again later; messages in private conversations go on."
	case CauseFinished:
		return "Not sent: " + contact + " has ended the private conversation. Write !otr start to be private again, or !otr end to go on without."
	case CauseKeyChanged:
		return "Not sent: the key of " + contact + " is not the one known before. Compare fingerprints with them (!otr verify says how); or accept the new key with !otr send FINGERPRINT."
	case CauseUnverified:
		return "Not sent: the rules demand that the key of " + contact + " is verified first. Compare fingerprints with them (!otr verify says how), or ask what only they know: !otr smp ask QUESTION | ANSWER."
	case CauseNoKey:
		return "Not sent: this account has no usable OTR key; the log of otrproxy says why."
	case CauseEngine:
		return "Not sent: the message could not be encrypted."
	case CauseUnprotected:
		return "Not sent: OTR can encrypt text only, and the rules demand encryption for " + contact + "."
	case CauseShutdown:
		return "Not sent: otrproxy is being stopped. Send it again once it runs."
	case CauseDropped:
		return "Not sent: taken back on your request."
	case CauseBounced:
		return "Not sent: the server says that " + contact + " cannot be reached."
	case CauseOwnOTR:
		return "Not sent: your client speaks OTR itself, which otrproxy already does for you. Turn OTR off in the client, or set the policy never for " + contact + "."
	case CauseTooLarge:
		return "Not sent: encrypted, this text would be too large for the server. Send it in parts."
	case CauseUpstream:
		return "Not sent: the connection to the server was lost. Send it again once you are connected."
	case CauseUnread:
		return "Sent, but the program of " + contact + " said that it could not read it: its private conversation had ended. Write it again."
	case CauseRoom:
		return "Not sent: you are in the room " + contact + " now, and OTR cannot protect what is said in a room to one person."
	case CauseNotInRoom:
		return "Not sent: you are not in the room " + contact + ". Join it first."
	case CauseStranger:
		return "Not sent: you logged in with another password than the one known here, so nothing of yours is encrypted yet. The message of otrproxy says what to do."
	case CauseUncertain:
		return "This may not have been sent: the connection to the server was lost before it had confirmed it. Ask " + contact + " whether they have it, or send it again."
	}
	return "Not sent."
}
