package otrlayer

import (
	"bytes"
	"container/list"
	"time"

	"otrproxy/otrlayer/keyring"
)

// A Message is text a person's client handed over.
type Message struct {
	Contact  string // bare JID
	To       string // as the client wrote it
	ID       string
	Type     string // XMPP's message type
	Slight   bool   // it says nothing a person wrote
	Text     string
	Thread   string                   // its thread's name (RFC 6121 section 5.2.5), for the error that gives it back
	Occupant bool                     // it is for one occupant of a room (XEP-0045 section 7.5)
	Where    string                   // in which conversation lines about it stand; "" for that with the contact
	Extra    []byte                   // what may stand beside the ciphertext, ready to send; valid as long as Raw
	Raw      []byte                   // the stanza as it came; valid only during Send or Pass
	RawID    []byte                   // the ID in the place of ID, for Pass; valid only during it
	Rewrite  func(body string) []byte // the stanza as it came with another body; valid only during Send

	outlet Outlet
	since  time.Time
	to     keyring.Fingerprint // the key it was encrypted to
	ssid   [8]byte             // of the keys, and how many texts they had encrypted with it
	count  int
	at     string // the JID it went to
	again  bool   // it is being, or has been, sent again
	// overdue says that it left on keys that the contact had lost: that it could not be read is
	// still to be said.
	overdue bool

	kept      *list.Element // among the texts the account keeps; nil for none
	forgotten bool          // its text is not kept any more
}

// A Slip is what is needed to give a message back.
type Slip struct {
	Contact, To, ID string
	Text            string // "" where nobody has looked at it
	Where           string
	Occupant        bool
	Again           bool // it was sent before
	outlet          Outlet
}

// Slip is that of the message.
func (m *Message) Slip() Slip {
	return Slip{m.Contact, m.To, m.ID, m.Text, m.Where, m.Occupant, m.again, m.outlet}
}

// Message is the message a slip is of.
func (s Slip) Message() *Message {
	return &Message{Contact: s.Contact, To: s.To, ID: s.ID, Text: s.Text, Where: s.Where, Occupant: s.Occupant, outlet: s.outlet}
}

// An Action says what becomes of a message. The zero value blocks it.
type Action uint8

// A Verdict is the permission to write one message to the server. Only this
// package makes verdicts that permit anything.
type Verdict struct {
	action  Action
	cause   Cause
	message *Message // nil for Protocol
	to      string
	body    string
	sealed  []byte // the body of an encrypted one, which has no other
	store   bool
}

// Action is what may be done.
func (v Verdict) Action() Action { return v.action }

// Cause is why it may not leave now.
func (v Verdict) Cause() Cause { return v.cause }

// Message is what it is about.
func (v Verdict) Message() *Message { return v.message }

// To is the JID the stanza goes to.
func (v Verdict) To() string { return v.to }

// Body is the text of the stanza's body; empty for Plain when the stanza leaves
// byte for byte.
func (v Verdict) Body() string {
	if v.sealed != nil {
		return string(v.sealed)
	}
	return v.body
}

// Sealed is the body of an Encrypted one, without a copy: valid until Emit returns.
func (v Verdict) Sealed() []byte { return v.sealed }

// Clone is a verdict that stays valid.
func (v Verdict) Clone() Verdict {
	v.sealed = bytes.Clone(v.sealed)
	return v
}

// Store reports whether the server should keep the message for a contact that is
// offline.
func (v Verdict) Store() bool { return v.store }
