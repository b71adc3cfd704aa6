package otrlayer

// An engine is the OTR protocol between one instance of ours and one of a
// contact: first a key exchange under way, then, once it is complete, a live
// session. Every exchange has an engine of its own, which takes the place of the
// session before it only when it is complete (Encrypted). An engine is not safe
// for use by several goroutines.
type engine interface {
	// Commit begins an exchange and returns the D-H Commit message.
	Commit() (string, error)
	// Receive takes an encoded message addressed to this engine. ok tells that
	// there is text (a heartbeat or a key exchange has none); replies are to be
	// sent, in order.
	Receive(encoded string) (text string, ok bool, replies []string, err error)
	// Encrypt returns the data message that carries a text.
	Encrypt(text string) (string, error)
	// End returns the message that tells the other side that the session is over.
	End() (string, error)
	// Encrypted reports whether the exchange is complete and the session alive.
	Encrypted() bool
	// Finished reports whether the other side has ended the session.
	Finished() bool
	// Fingerprint is that of the key which signed the exchange; valid once
	// Encrypted is true.
	Fingerprint() Fingerprint
	// Forget drops all keys.
	Forget()
}

// A privateKey is the account's long-term DSA key.
type privateKey interface {
	Fingerprint() Fingerprint
	// newEngine makes an engine with our instance tag.
	newEngine(tag uint32) engine
}
