package proxy_test

import (
	"encoding/base64"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

// A network that is gone without a word is noticed: within a minute where something is under
// way, which comes back, and within five minutes where nothing is.
func TestSilentServerIsGivenUp(t *testing.T) {
	testKeys(t) // outside simulated time
	for name, c := range map[string]struct {
		faults server.Faults
		say    bool
		within time.Duration
	}{
		"counting, a message under way": {say: true, within: time.Minute + time.Second},
		"counting, idle":                {within: 5*time.Minute + time.Second},
		"pings, a message under way":    {faults: server.Faults{NoCounting: true}, say: true, within: time.Minute + time.Second},
		"pings, idle":                   {faults: server.Faults{NoCounting: true}, within: 5*time.Minute + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := quietWorld(t, c.faults)
				alice, bob := w.begin()
				alice.Say("bob@"+domain, "first", "hello")
				time.Sleep(7 * time.Minute) // longer than any watch: a server that answers is not given up
				if alice.Ended() || bob.Ended() {
					t.Fatalf("a server that answers was given up:\n%s", strings.Join(w.log, "\n"))
				}
				w.home.up.Freeze()
				w.home.up.CutAfter(0, time.Hour)
				gone := time.Now()
				if c.say {
					alice.Say("bob@"+domain, "lost", "into the void")
				}
				for !alice.Ended() && time.Since(gone) < 20*time.Minute {
					time.Sleep(100 * time.Millisecond)
				}
				took := time.Since(gone)
				t.Logf("told after %v", took)
				if took > c.within {
					t.Errorf("told after %v", took)
				}
				got := string(alice.wire.Recorded())
				if !strings.Contains(got, "The server has given no sign of life") {
					t.Errorf("the client is not told why: %s", got[max(0, len(got)-600):])
				}
				if c.say && (!strings.Contains(got, "id='lost'") || !strings.Contains(got, "This may not have been sent")) {
					t.Errorf("what was under way is not told of: %s", got[max(0, len(got)-1500):])
				}
				again := w.home.login()
				if again == nil {
					t.Fatal("no login afterwards")
				}
				again.Say("bob@"+domain, "after", "again")
				time.Sleep(time.Minute)
				w.end(again, bob)
			})
		})
	}
}

// A server that does not know pings, and does not count, is left alone.
func TestServerWithoutPingsIsLeftAlone(t *testing.T) {
	testKeys(t)
	synctest.Test(t, func(t *testing.T) {
		w := quietWorld(t, server.Faults{NoCounting: true, NoPings: true})
		alice, bob := w.begin()
		for range 20 {
			alice.Say("bob@"+domain, "", "hello")
			time.Sleep(3 * time.Minute)
		}
		if alice.Ended() || bob.Ended() {
			t.Errorf("given up:\n%s", strings.Join(w.log, "\n"))
		}
		w.end(alice, bob)
	})
}

// One ask serves all: the sessions' idle servers are asked at one moment.
func TestIdleServersAreAskedAtOnce(t *testing.T) {
	testKeys(t)
	synctest.Test(t, func(t *testing.T) {
		w := quietWorld(t, server.Faults{})
		alice, bob := w.begin()
		var others []*client.Client
		for i := range 5 {
			time.Sleep(17 * time.Second)
			c, err := client.Dial(t.Context(), client.Config{Addr: w.home.addr, JID: "alice@" + domain, Password: users()["alice"], Resource: string(rune('p' + i)), Entry: client.Plain, Dial: w.net.Dial})
			if err != nil {
				t.Fatal(err)
			}
			others = append(others, c)
		}
		time.Sleep(time.Minute)
		up := w.home.up // the last session's
		before, moments := up.Passed(), 0
		for range 60 * 20 {
			time.Sleep(time.Second)
			if now := up.Passed(); now != before {
				before = now
				moments++
			}
		}
		if moments < 4 || moments > 6 {
			t.Errorf("asked %d times in 20 minutes", moments)
		}
		for _, c := range others {
			c.Drop()
		}
		w.end(alice, bob)
	})
}

// quietWorld is a world whose server delivers everything.
func quietWorld(t *testing.T, faults server.Faults) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(1, 4)), had: map[string]bool{}}
	l, err := w.net.Listen("tcp", "127.0.0.1:5222")
	if err != nil {
		t.Fatal(err)
	}
	w.srv, err = server.Start(server.Config{Domain: domain, Users: users(), Listener: l, Forget: true, Mechanisms: []string{"SCRAM-SHA-256-PLUS"}, Faults: faults})
	if err != nil {
		t.Fatal(err)
	}
	w.home, w.away = &house{w: w, user: "alice", state: stateDir(t)}, &house{w: w, user: "bob", state: stateDir(t)}
	return w
}

// endHome ends a world of which only alice's house was used.
func (w *world) endHome() {
	w.home.stop()
	w.srv.Close()
	synctest.Wait()
}

// A server that says nothing at the beginning is given up, too: to a client that asks for a
// resource, and to us who ask it to count.
func TestServerSilentAtTheBeginningIsGivenUp(t *testing.T) {
	testKeys(t)
	for name, from := range map[string]string{"before the resource": "login", "before it counts": "bind"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := quietWorld(t, server.Faults{SilentFrom: from})
				w.home.start()
				start := time.Now()
				c, err := client.Open(t.Context(), client.Config{Addr: w.home.addr, JID: "alice@" + domain, Password: users()["alice"], Resource: "c", Entry: client.Plain, Quiet: true, Manual: true, Dial: w.net.Dial})
				if err != nil {
					t.Fatal(err)
				}
				err = c.Login()
				for err == nil && time.Since(start) < 20*time.Minute {
					_, err = c.Next()
				}
				if took := time.Since(start); took > 70*time.Second {
					t.Errorf("given up after %v: %v", took, err)
				}
				c.Drop()
				w.endHome()
			})
		})
	}
}

// A server that is busy with what we have asked it for is there, even if it takes long to say
// what it has taken.
func TestBusyServerIsNotGivenUp(t *testing.T) {
	testKeys(t)
	synctest.Test(t, func(t *testing.T) {
		w := quietWorld(t, server.Faults{Unconfirmed: true})
		alice, bob := w.begin()
		alice.Say("bob@"+domain, "first", "hello")
		for range 600 { // ten minutes
			w.srv.Send("alice", "<message from='bob@example.org/c' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>")
			time.Sleep(time.Second)
		}
		if alice.Ended() {
			t.Errorf("given up:\n%s", strings.Join(w.log, "\n"))
		}
		w.end(alice, bob)
	})
}

// A server is not given up because the client does not read for a while.
func TestSlowClientIsNoSilentServer(t *testing.T) {
	testKeys(t)
	synctest.Test(t, func(t *testing.T) {
		w := quietWorld(t, server.Faults{})
		w.home.start("limits: {answer: 20s, alive: 60s}\n")
		c, err := client.Dial(t.Context(), client.Config{Addr: w.home.addr, JID: "alice@" + domain, Password: users()["alice"], Resource: "c", Entry: client.Plain, Manual: true, Quiet: true, Dial: w.net.Dial})
		if err != nil {
			t.Fatal(err)
		}
		c.Send("<presence/>")
		time.Sleep(time.Second)
		go func() {
			for range 7 {
				w.srv.Send("alice", "<message from='bob@example.org/c' type='groupchat'><subject>"+strings.Repeat("x", 20<<10)+"</subject></message>")
			}
		}()
		time.Sleep(2 * time.Second)
		c.Send("<iq type='get' id='q' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
		time.Sleep(35 * time.Second) // the phone sleeps
		got := ""
		start := time.Now()
		for time.Since(start) < 10*time.Second {
			st, err := c.Next()
			if err != nil {
				got += err.Error()
				break
			}
			if st.Kind != stanza.KindElement {
				continue
			}
			if id := st.Root().Attr("id"); id == "q" {
				got += "answered"
				break
			}
			if strings.Contains(string(st.Raw), "sign of life") {
				got += string(st.Raw)
			}
		}
		if got != "answered" {
			t.Errorf("%s\n%s", got, strings.Join(w.log, "\n"))
		}
		c.Drop()
		w.endHome()
	})
}

// A client that takes its time before it asks for a resource, and sends white space meanwhile.
func TestClientMayTakeItsTimeBeforeTheResource(t *testing.T) {
	testKeys(t)
	synctest.Test(t, func(t *testing.T) {
		w := quietWorld(t, server.Faults{})
		w.home.start()
		conn, err := w.net.Dial(t.Context(), "tcp", w.home.addr)
		if err != nil {
			t.Fatal(err)
		}
		scan := stanza.NewScanner(conn, stanza.Limits{})
		next := func() *stanza.Stanza {
			st, err := scan.Next()
			if err != nil {
				t.Fatalf("%v\n%s", err, strings.Join(w.log, "\n"))
			}
			return st
		}
		header := "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='" + domain + "' version='1.0'>"
		io.WriteString(conn, header)
		next()
		next()
		io.WriteString(conn, "<auth xmlns='"+stanza.NSSASL+"' mechanism='PLAIN'>"+base64.StdEncoding.EncodeToString([]byte("\x00alice\x00"+users()["alice"]))+"</auth>")
		next()
		scan = stanza.NewScanner(conn, stanza.Limits{})
		io.WriteString(conn, header)
		next()
		next()
		io.WriteString(conn, " ")
		time.Sleep(70 * time.Second)
		io.WriteString(conn, "<iq type='set' id='bind'><bind xmlns='"+stanza.NSBind+"'/></iq>")
		if st := next(); st.Root().Attr("id") != "bind" {
			t.Errorf("%s", st.Raw)
		}
		conn.Close()
		w.endHome()
	})
}
