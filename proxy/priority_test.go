package proxy_test

import (
	"bytes"
	"fmt"
	"testing"
)

// What is written to a contact's bare address never goes to a resource with a negative
// priority by itself (RFC 6121, section 8.5.2.1).
func TestBareAddressNeverReachesNegativePriority(t *testing.T) {
	p := posted(t, "")
	to := func() (n int) { // data messages; an exchange may go on with the resource
		for _, m := range bytes.Split(p.s.Received(), []byte("<message")) {
			if bytes.Contains(m, []byte(bobJID)) && bytes.Contains(m, []byte("<body>?OTR:AAMD")) && !bytes.Contains(m, []byte("from=")) {
				n++
			}
		}
		return n
	}
	p.hold.Store(false)
	for _, priority := range []string{"-1", " -128 "} {
		fromServer(t, p.s, p.alice, fmt.Sprintf("<presence from='%s'><priority>%s</priority></presence>", bobJID, priority))
		before := to()
		p.alice.Say("bob@"+domain, "bare"+priority, "to whichever can read it")
		seen(p.alice)
		if to() != before {
			t.Errorf("priority %q: it went to the resource", priority)
		}
		fromServer(t, p.s, p.alice, fmt.Sprintf("<presence from='%s'/>", bobJID))
		text(t, p.bob, "alice@"+domain, "to whichever can read it")
	}
}
