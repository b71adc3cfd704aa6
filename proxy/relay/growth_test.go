package relay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// What something costs beside a thousand others, which should be what it costs alone.

// crowd is how many of each thing there are besides.
type crowd struct{ sessions, conversations, keys, accounts int }

// crowded is a session among others of its proxy.
func crowded(tb testing.TB, n crowd) *Session {
	s := lone(tb, config.Rule{Policy: config.Opportunistic})
	r := s.r
	var keys strings.Builder
	for i := range n.keys {
		fmt.Fprintf(&keys, "known%d@path.example\talice@path.example\tprpl-jabber\t%040x\tverified\n", i, i+1)
	}
	state := r.dir
	for i := range n.accounts {
		if err := os.MkdirAll(keyring.Dir(state, fmt.Sprintf("other%d@path.example", i)), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	dir := keyring.Dir(state, "alice@path.example")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "otr.fingerprints"), []byte(keys.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	cfg := r.config()
	cfg.Limits.Accounts = 100_000
	r = quiet(cfg) // which reads alice anew
	s.r = r
	a, err := r.Accounts.Open("alice@path.example")
	if err != nil {
		tb.Fatal(err)
	}
	s.of.Store(a)
	a.Attach(s)
	for i := range n.sessions {
		r.sessions.add(&Session{r: r, identity: identity{jid: fmt.Sprintf("other%d@path.example", i)}})
	}
	for i := range n.conversations {
		s.Account().Send(s, otrlayer.Message{Contact: fmt.Sprintf("contact%d@path.example", i), Text: "hello", ID: "1"}, otrlayer.Rule{Policy: otrlayer.Opportunistic})
		s.server.Flush()
	}
	if got := len(a.Conversations()); got != n.conversations {
		tb.Fatalf("%d conversations, not %d", got, n.conversations)
	}
	if got := len(a.Contacts()); got != n.conversations+n.keys {
		tb.Fatalf("%d contacts, not %d", got, n.conversations+n.keys)
	}
	return s
}

// grown are the things done, each of them some times.
var grown = map[string]func(tb testing.TB, s *Session) func(){
	"stanza": func(tb testing.TB, s *Session) func() {
		st, err := stanza.Parse([]byte("<message xmlns='jabber:client' to='bob@path.example/bench' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"))
		if err != nil {
			tb.Fatal(err)
		}
		return func() {
			s.outgoing(st)
			s.server.Flush()
		}
	},
	"session": func(tb testing.TB, s *Session) func() { // of the account, from its beginning to its end
		return func() {
			other := &Session{r: s.r, identity: identity{jid: s.jid}}
			other.of.Store(s.Account())
			other.client, other.server = leg.NewOutbox(nowhere{}, nil), leg.NewOutbox(nowhere{}, nil)
			s.r.join(other)
			s.Account().Detach(s)
			s.Account().Attach(s)
			s.r.part(other)
		}
	},
	"seat": func(tb testing.TB, s *Session) func() {
		return func() {
			seat, f := s.r.Accounts.Sit("new@path.example", s.r.config().Limits)
			if f != nil {
				tb.Fatal(f)
			}
			s.r.Logins.Provers("path.example", "", "127.0.0.1")
			s.r.Accounts.Leave(&seat)
		}
	},
}

func BenchmarkGrowth(b *testing.B) {
	for _, what := range []string{"stanza", "session", "seat"} {
		for _, n := range []int{1, 100, 1000, 10_000} {
			for name, c := range map[string]crowd{"sessions": {sessions: n}, "conversations": {conversations: n}, "keys": {keys: n}, "accounts": {accounts: n}} {
				b.Run(fmt.Sprintf("%s/%s/%d", what, name, n), func(b *testing.B) {
					do := grown[what](b, crowded(b, c))
					for b.Loop() {
						do()
					}
				})
			}
		}
	}
}
