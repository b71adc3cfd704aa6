package otrlayer

import (
	"time"

	"otrproxy/otrlayer/keyring"
)

// A What is what there is to tell. Its words stand in the catalogue of package control, under the
// same name.
type What string

// What there is to tell.
const (
	SayAsked       What = "asked"        // they were asked for a private conversation
	SayKeyMaking   What = "key-making"   // our key is still being made
	SayOver        What = "over"         // the person has ended it
	SayNewKey      What = "new-key"      // it was ended, for our key is another one
	SayIdle        What = "idle"         // it was ended, for nobody used it; the next message asks anew
	SayIdleOpen    What = "idle-open"    // the same, where text may leave in clear
	SayEnded       What = "ended"        // they have ended it; the next message asks anew
	SayEndedOpen   What = "ended-open"   // the same, where text may leave in clear
	SayStarted     What = "started"      // it has begun, with a key that is verified
	SayUnverified  What = "unverified"   // with one that is not, and nothing leaves before
	SayNotVerified What = "not-verified" // with one that is not
	SayKeyChanged  What = "key-changed"  // with another one than before
	SayDevice      What = "device"       // another device of theirs has joined
	SayWeaker      What = "weaker"       // they speak an older version than before
	SayForsaken    What = "forsaken"     // their other keys are forgotten, for one was verified
	SayMore        What = "more"         // there is more of this, which is not shown
	SayStrangers   What = "strangers"    // many people ask, who are not all shown
	SayDamaged     What = "damaged"      // what they sent is no message that could be read
	SayDropped     What = "dropped"      // what they send in clear is not shown
	SayWantedAway  What = "wanted-away"  // they asked for a private conversation while nobody was there
	SayWanted      What = "wanted"       // they did, and are no contact
	SayOldOnly     What = "old-only"     // they speak no version that protects
	SayOtherOnly   What = "other-only"   // they speak none that the rules allow
	SayForbidden   What = "forbidden"    // they began with a version that the rules forbid
	SayReflected   What = "reflected"    // they presented our own key
	SayUnread      What = "unread"       // they could not read a message, of a conversation that is over
	SayUnreadLast  What = "unread-last"  // they could not read the last one
	SayUnreadAgain What = "unread-again" // nor this one
	SayUnreadAnew  What = "unread-anew"  // they could not read the last one, and are asked anew
	SayLost        What = "lost"         // they could not read older ones, which are not kept
	SayUnreadable  What = "unreadable"   // we could not read theirs
	SayWaitsMoment What = "waits-moment" // a message waits, while a conversation is being settled
	SayWaitsCause  What = "waits-cause"  // it waits for the person
	SayWaitsAway   What = "waits-away"   // it waits for somebody who is not there
	SayWaits       What = "waits"        // it waits for a private conversation
	SayUnreached   What = "unreached"    // it still waits, though they could not be reached
	SaySent        What = "sent"         // what waited was sent
	SayNotSent     What = "not-sent"     // what was not sent, and why
	SaySMPGivenUp  What = "smp-given-up" // a comparison was given up, for another device
	SaySMPAsked    What = "smp-asked"    // they ask a question
	SaySMPSecret   What = "smp-secret"   // they want to compare a secret
	SaySMPAnswered What = "smp-answered" // our answer was right
	SaySMPSame     What = "smp-same"     // the secrets are the same
	SaySMPDiffer   What = "smp-differ"   // they are not
	SaySMPAborted  What = "smp-aborted"  // they have given it up
	SaySMPCheated  What = "smp-cheated"  // their program sent what an honest one does not
	SayFull        What = "full"         // there is no room for one more conversation
)

// A Notice is something to tell a person, with what its words are made of.
type Notice struct {
	What        What
	Contact     string // bare JID
	Fingerprint keyring.Fingerprint
	Own         keyring.Fingerprint
	Others      []keyring.Fingerprint // further keys of theirs
	Version     int                   // of OTR that is spoken
	Spoken      string                // versions that they speak, in words
	Allowed     string                // versions that the rules allow
	Question    string
	N           int           // messages
	Kept        bool          // what they could not read is sent again
	Told        bool          // their program was told
	Within      time.Duration // until what waits comes back
	Why         Why
	Texts       []string // of messages, as far as they are known
}

// A Why is why a message was not sent.
type Why struct {
	Cause       Cause
	Reason      string // the household's own, for a rule of theirs
	Unprotected string // what OTR cannot protect, by name
}

// about is a notice that needs no more than the contact.
func (c *conversation) about(what What) Notice { return Notice{What: what, Contact: c.contact} }

// why is a cause, with the household's own reason where a rule is the cause.
func (a *Account) why(c Cause, contact string) Why {
	reason := a.settings().Reason
	if !c.ruled() || reason == nil {
		return Why{Cause: c}
	}
	return Why{Cause: c, Reason: reason(contact)}
}

// NotSent is the notice of messages of one conversation that were not sent.
func NotSent(why Why, list ...*Message) Notice {
	n := Notice{What: SayNotSent, Contact: list[0].Contact, Why: why, N: len(list)}
	for _, m := range list {
		if m.Text != "" {
			n.Texts = append(n.Texts, m.Text)
		}
	}
	return n
}
