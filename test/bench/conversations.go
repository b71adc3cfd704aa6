//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"otrproxy/otrlayer"
)

// conversations says, as a process, what private conversations of one account take, at each
// of the numbers given. How many a second others can begin is bounded, so thousands take
// long: a bubble of synctest has a clock that does not wait. It is there in tests only, so
// this runs as one.
func conversations(args []string) error {
	os.Args = os.Args[:1] // which the test reads
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "conversations", F: func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if err := talk(args); err != nil {
				t.Error(err)
			}
		})
	}}}, nil, nil)
	return nil // it ends the process by itself
}

func talk(args []string) error {
	dir, err := os.MkdirTemp("/dev/shm", "otrproxy-bench") // each new key is written to disk
	if err != nil {
		dir, err = os.MkdirTemp("", "otrproxy-bench")
	}
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	alice, err := newSpeaker(filepath.Join(dir, "alice"), "alice@"+domain, 0)
	if err != nil {
		return err
	}
	defer alice.account.Close()
	n := 0
	before := heap()
	for _, arg := range args {
		up, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		for ; n < up; n++ {
			if err := alice.meets(filepath.Join(dir, "others"), fmt.Sprintf("contact%d@%s", n, domain)); err != nil {
				return fmt.Errorf("conversation %d: %w", n, err)
			}
			time.Sleep(time.Second)
		}
		private := 0
		for _, c := range alice.account.Conversations() {
			if c.State == otrlayer.StateEncrypted {
				private++
			}
		}
		if private != n {
			return fmt.Errorf("%d of %d conversations are private", private, n)
		}
		short := heap()
		time.Sleep(time.Hour)
		fmt.Println("conversations", n, before, short, heap())
	}
	return nil
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A speaker is an account with one client.
type speaker struct {
	account *otrlayer.Account
	jid     string
	out     []otrlayer.Verdict
	read    []string
	said    []string // by the proxy
}

// newSpeaker opens an account; which says whose key it has, by turns.
func newSpeaker(state, jid string, which int) (*speaker, error) {
	jids := []string{"nobody@" + domain, "nobody2@" + domain}[:which]
	if err := giveKeys(state, append(jids, jid)...); err != nil {
		return nil, err
	}
	a, err := otrlayer.Open(state, jid, func() otrlayer.Settings {
		return otrlayer.Settings{Policy: func(string) otrlayer.Policy { return otrlayer.Require }, Hold: otrlayer.Hold{Messages: 100, Bytes: 1 << 20, For: time.Minute}, Largest: 256 << 10}
	}, unheard{}, nil, nil)
	if err != nil {
		return nil, err
	}
	s := &speaker{account: a, jid: jid}
	if err := a.Prepare(); err != nil {
		return nil, err
	}
	<-a.Ready()
	a.Attach(s)
	return s, nil
}

func (s *speaker) Emit(v otrlayer.Verdict) bool {
	s.out = append(s.out, v.Clone())
	return true
}
func (s *speaker) Shows()        {}
func (s *speaker) Pending() bool { return false }
func (s *speaker) Notice(_ string, n otrlayer.Notice) bool {
	s.said = append(s.said, string(n.What))
	return true
}
func (s *speaker) Mirror(otrlayer.Mirrored) otrlayer.Mirroring { return otrlayer.Unwanted }
func (s *speaker) Sees(string) bool                            { return false }

func (s *speaker) Return(_ *otrlayer.Message, why otrlayer.Why) otrlayer.Sign {
	s.said = append(s.said, string(why.Cause))
	return otrlayer.SeenWhy
}

// unheard is told of everything, for nothing.
type unheard struct{}

func (unheard) Handshake(string)                {}
func (unheard) Keeps(_, _ otrlayer.Kept)        {}
func (unheard) Log(int, string, error)          {}
func (unheard) Happened(string, otrlayer.Event) {}

// meets has alice write to a contact who is there for that long only, and get an answer.
func (s *speaker) meets(state, jid string) error {
	other, err := newSpeaker(state, jid, 1)
	if err != nil {
		return err
	}
	defer other.account.Close()
	s.read, s.said = nil, nil
	for _, from := range []*speaker{s, other} {
		to := other
		if from == other {
			to = s
		}
		from.account.Send(from, otrlayer.Message{Contact: to.jid, To: to.jid, ID: "1", Type: "chat", Text: "hello"}, otrlayer.Rule{})
		s.carry(other)
		if len(to.read) != 1 || to.read[0] != "hello" {
			return fmt.Errorf("%s has read %q; %q", to.jid, to.read, append(from.said, to.said...))
		}
	}
	return nil
}

// carry brings to either what the other has sent, until both are silent.
func (s *speaker) carry(other *speaker) {
	for len(s.out)+len(other.out) > 0 {
		for _, way := range [][2]*speaker{{s, other}, {other, s}} {
			from, to := way[0], way[1]
			list := from.out
			from.out = nil
			for _, v := range list {
				r := to.account.Receive(to, otrlayer.Incoming{From: from.jid + "/r", Contact: from.jid, Text: v.Body(), Welcome: true})
				if r.Deliver {
					to.read = append(to.read, r.Text)
				}
			}
		}
	}
}
