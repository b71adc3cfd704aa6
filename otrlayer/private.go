package otrlayer

// oncePrivate calls f when a conversation that has just become private is one on disk as
// well, or cannot be. Where the rules demand encryption anyway nothing has to wait for that.
func (c *conversation) oncePrivate(f func()) {
	b := c.a.private.Pending()
	if b == nil || c.a.settings().Policy(c.contact).requires() {
		f()
		return
	}
	session := c.active
	b.After(func() {
		if c.state == StateEncrypted && c.active == session {
			f()
		}
	})
}
