package proxy_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

const enableCarbons = "<iq type='set' id='carbons'><enable xmlns='urn:xmpp:carbons:2'/></iq>"

// A device is one client of alice's, and what it has shown.
type device struct {
	t *testing.T
	*client.Client
	shown []string
}

// device logs alice in once more; with carbons where they are wanted.
func (b *box) device(resource string, carbons bool) *device {
	b.t.Helper()
	cfg := b.config("alice", client.Plain)
	cfg.Resource = resource
	c, err := client.Dial(b.t.Context(), cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Drop)
	if carbons {
		c.Send(enableCarbons)
		if _, err := c.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "carbons" }); err != nil {
			b.t.Fatal(err)
		}
	}
	return &device{t: b.t, Client: c}
}

// askArrived is a request that the server answers in the order in which it was sent.
const askArrived = "<iq type='get' id='arrived'><query xmlns='jabber:iq:roster'/></iq>"

// arrived waits until the server has taken all that a client has sent so far.
func arrived(t *testing.T, c *client.Client) {
	t.Helper()
	c.Send(askArrived)
	if _, err := c.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "arrived" }); err != nil {
		t.Fatal(err)
	}
}

// line is how a device shows a stanza: who speaks and what is said; "" for nothing.
func line(st *stanza.Stanza) string {
	root := st.Root()
	if root.Attr("type") == "error" || client.Notice(st) {
		return ""
	}
	for el := range root.Children() {
		if string(el.NS()) != "urn:xmpp:carbons:2" {
			continue
		}
		for d := range el.Descendants() {
			if d.Is(stanza.NSClient, "body") {
				return string(el.Local()) + " carbon: " + d.Text()
			}
		}
	}
	if text := client.Body(st); text != "" {
		return "message: " + text
	}
	return ""
}

// until takes what the device shows, up to a text.
func (d *device) until(last string) {
	d.t.Helper()
	for !slices.ContainsFunc(d.shown, func(l string) bool { return strings.HasSuffix(l, last) }) {
		st, err := d.Wait(func(st *stanza.Stanza) bool { return line(st) != "" })
		if err != nil {
			d.t.Fatalf("%s shows %q and not %q (%v)", d.JID, d.shown, last, err)
		}
		d.shown = append(d.shown, line(st))
	}
}

// rest takes what the device shows before the server answers it.
func (d *device) rest() {
	d.t.Helper()
	d.Send(askArrived)
	for {
		st, err := d.Wait(func(st *stanza.Stanza) bool { return line(st) != "" || st.Root().Attr("id") == "arrived" })
		if err != nil {
			d.t.Fatal(err)
		}
		if st.Root().Attr("id") == "arrived" {
			return
		}
		d.shown = append(d.shown, line(st))
	}
}

// showed checks all that was shown; * stands for any way of showing it.
func (d *device) showed(want ...string) {
	d.t.Helper()
	if !slices.EqualFunc(d.shown, want, func(got, want string) bool {
		text, any := strings.CutPrefix(want, "*: ")
		return got == want || any && strings.HasSuffix(got, ": "+text)
	}) {
		d.t.Errorf("%s shows\n%q, not\n%q", d.JID, d.shown, want)
	}
}

// All clients of an account share its conversations: one key exchange, everything shown
// once on each, whichever the server or the contact picks, and nothing lost when one goes.
// Nobody hears of presence here: a contact's program that sees the client go it talks with
// may ask for another exchange, as otrproxy itself does.
func TestDevices(t *testing.T) {
	s := startServer(t, server.Config{Strangers: true})
	home, away := startProxy(t, s, ""), startProxy(t, s, "")
	desk, phone, old := home.device("desk", true), home.device("phone", true), home.device("old", false)
	bob := away.login("bob", client.Plain)
	arrived(t, bob)
	const bobJID, aliceJID = "bob@" + domain, "alice@" + domain
	shakes := func(want string) {
		t.Helper()
		for _, b := range []*box{home, away} {
			if got := metric(b, `otrproxy_handshakes_total{result="complete"}`); got != want {
				t.Errorf("%s key exchanges, not %s", got, want)
			}
		}
	}

	desk.Say(bobJID, "1", "one from the desk")
	text(t, bob, aliceJID, "one from the desk")
	phone.until("one from the desk")
	bob.Say(aliceJID, "2", "two from bob") // to the desk alone, which has answered him
	desk.until("two from bob")
	phone.until("two from bob")
	old.until("two from bob")
	phone.Say(bobJID, "3", "three from the phone")
	text(t, bob, aliceJID, "three from the phone")
	desk.until("three from the phone")
	shakes("1")

	desk.Close()
	home.counts("otrproxy_sessions", "2")   // what a server has sent to a client that just goes is lost, or comes back later
	bob.Say(aliceJID, "4", "four from bob") // still to the desk: the server brings it to the others
	phone.until("four from bob")
	old.until("four from bob")
	old.Say(bobJID, "5", "five from the old one")
	text(t, bob, aliceJID, "five from the old one")
	phone.until("five from the old one")
	shakes("1")

	// A query to the account reaches both, and is answered once.
	bob.Say(aliceJID, "", "!otr start")
	if _, err := bob.Notice("Asked " + aliceJID); err != nil {
		t.Fatal(err)
	}
	bob.Say(aliceJID, "6", "six from bob")
	phone.until("six from bob")
	old.until("six from bob")
	signatures := func(r []byte) bool { return bytes.Count(r, []byte("?OTR:AAMS")) == 2 }
	if !s.Wait(signatures) {
		t.Error("bob's query was not answered")
	}
	old.Say(bobJID, "7", "seven from the old one")
	text(t, bob, aliceJID, "seven from the old one")
	phone.until("seven from the old one")
	shakes("2")
	if n := bytes.Count(s.Received(), []byte("?OTR:AAMC")); n != 2 {
		t.Errorf("%d D-H Commit messages, not 2", n)
	}

	desk.showed("message: two from bob", "sent carbon: three from the phone")
	phone.showed("sent carbon: one from the desk", "received carbon: two from bob", "*: four from bob", "sent carbon: five from the old one", "*: six from bob", "sent carbon: seven from the old one")
	old.showed("message: two from bob", "*: four from bob", "*: six from bob")
	for _, word := range []string{"one from", "two from", "three", "four", "five from", "six from", "seven", "forwarded"} {
		if strings.Contains(string(s.Received()), word) {
			t.Errorf("the server saw %q", word)
		}
	}
}

// What the server brings to several clients, or once more as a carbon, is shown once by
// each; a client that is not there, or does not want to be, is shown nothing.
func TestDevicesGetItOnce(t *testing.T) {
	p := posted(t, "")
	desk := &device{t: t, Client: p.alice}
	phone := p.home.device("phone", true)
	shy := p.home.device("shy", false)
	shy.Send("<presence><priority>-1</priority></presence>")
	arrived(t, shy.Client)
	message := func(to, cipher string) string {
		return fmt.Sprintf("<message from='%s' to='%s' type='chat' id='m'><body>%s</body><request xmlns='urn:xmpp:receipts'/></message>", bobJID, to, cipher)
	}
	carbon := func(to, cipher string) string {
		return fmt.Sprintf("<message from='alice@%s' to='%s'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='%s' to='%s' type='chat'><body>%s</body></message></forwarded></received></message>",
			domain, phone.JID, bobJID, to, cipher)
	}
	for i, c := range []struct {
		name, to string
		raws     func(cipher, to string) []string
	}{
		{"to the account, which the server brings to all", "alice@" + domain, func(cipher, to string) []string { return []string{message(to, cipher)} }},
		{"to one", p.alice.JID, func(cipher, to string) []string { return []string{message(to, cipher)} }},
		{"a carbon comes first", p.alice.JID, func(cipher, to string) []string { return []string{carbon(to, cipher), message(to, cipher)} }},
		{"a carbon comes last", p.alice.JID, func(cipher, to string) []string { return []string{message(to, cipher), carbon(to, cipher)} }},
	} {
		word := fmt.Sprintf("secret %d", i)
		cipher := p.writes(word)
		for _, raw := range c.raws(cipher, c.to) {
			p.s.Send("alice", raw) // to every session, whatever it is for
		}
		end := fmt.Sprintf("end %d", i)
		p.s.Send("alice", message("alice@"+domain, p.writes(end)))
		for _, d := range []*device{desk, phone} {
			d.shown = nil
			d.until(end)
			before := len(d.shown)
			d.rest()
			if n := strings.Count(strings.Join(d.shown, "\n"), word); n != 1 || len(d.shown) != before {
				t.Errorf("%s: %s shows it %d times, or something after the end: %q", c.name, d.JID, n, d.shown)
			}
		}
	}
}
