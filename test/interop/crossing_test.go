package interop

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"otrproxy/otrlayer/otr"
)

// Both sides begin at once, and the messages cross in every order there is: each
// order ends in a private conversation in which both read what the other writes, and
// there is no deadlock, whichever hash is larger.
func TestCrossing(t *testing.T) {
	orders, stuck := 0, 0
	for _, impl := range implementations {
		for _, v := range impl.versions {
			t.Run(fmt.Sprintf("%s/v%d", impl.name, v), func(t *testing.T) {
				k := &talk{t: t}
				k.peers[0] = newOurs(t, settings{versions: otr.Set(v), key: "alice", instance: 0x1000a})
				k.peers[1] = impl.start(t, settings{versions: otr.Set(v), key: "bob", instance: 0x1000b})
				limit := 200
				if impl.slow {
					limit = 20
				}
				// Which hash is larger decides who goes on: both cases, so that the tree of
				// orders is the same in every run.
				for larger := range 2 {
					n := everyOrder(limit, func(choose func(int) int) {
						k.reset()
						for {
							k.queue = [2][]string{}
							k.act(0, "restart")
							k.act(1, "restart")
							// Each has asked the other, and gets the other's question.
							for who := range 2 {
								k.act(who, "recv", string(otr.NewQuery(otr.Set(v), "")))
							}
							if larger == largerHash(t, k.queue[0][0], k.queue[1][0]) {
								break
							}
						}
						for len(k.queue[0])+len(k.queue[1]) > 0 {
							from := 0
							switch {
							case len(k.queue[0]) == 0:
								from = 1
							case len(k.queue[1]) > 0:
								from = choose(2)
							}
							k.deliver(from)
						}
						order := fmt.Sprint(k.log)
						if impl.sticks && len(k.texts(0, "secure")) == 0 {
							// It waits for what it has told us not to send. Whoever asks next mends it.
							stuck++
							k.act(0, "recv", string(otr.NewQuery(otr.Set(v), "")))
							k.pump()
						}
						k.secured(v, [2]string{"alice", "bob"})
						k.reset()
						k.act(0, "send", "from us")
						k.act(1, "send", "from them")
						k.pump()
						k.want(0, "plain", "from them")
						k.want(1, "plain", "from us")
						if t.Failed() {
							t.Fatalf("in this order: %.3000s", order)
						}
					})
					orders += n
					t.Logf("larger hash of side %d: %d orders", larger, n)
				}
			})
		}
	}
	t.Logf("crossing: %d orders, of which %d got stuck by the other program's own defect and went on when asked again", orders, stuck)
}

// largerHash tells which of two D-H Commit messages has the larger hash, its last
// field.
func largerHash(t *testing.T, messages ...string) int {
	t.Helper()
	var hash [2][]byte
	for i, m := range messages {
		b, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(strings.TrimPrefix(m, "?OTR:"), "."))
		if err != nil || len(b) < 32 {
			t.Fatalf("not a D-H Commit: %q, %v", m, err)
		}
		hash[i] = b[len(b)-32:]
	}
	if bytes.Compare(hash[0], hash[1]) > 0 {
		return 0
	}
	return 1
}

// everyOrder runs f once for every sequence of choices it can make, up to a limit,
// and says how often.
func everyOrder(limit int, f func(choose func(int) int)) (runs int) {
	var path, width []int // choices made, of how many
	for {
		at := 0
		f(func(n int) int {
			if at == len(path) {
				path, width = append(path, 0), append(width, n)
			}
			at++
			return path[at-1]
		})
		runs++
		path, width = path[:at], width[:at]
		for len(path) > 0 && path[len(path)-1] == width[len(path)-1]-1 {
			path, width = path[:len(path)-1], width[:len(path)-1]
		}
		if len(path) == 0 || runs >= limit {
			return runs
		}
		path[len(path)-1]++
	}
}

// Two instances of the other side are there at once: one question of ours brings
// both, each has a session of its own, and what is meant for one is nothing to the
// other.
func TestTwoInstances(t *testing.T) {
	for _, impl := range implementations {
		if impl.versions[len(impl.versions)-1] != otr.V3 {
			continue // version 2 has no instances
		}
		t.Run(impl.name, func(t *testing.T) {
			us := newOurs(t, settings{versions: otr.Set(otr.V3), key: "alice", instance: 0x1000a})
			tags := []uint32{0x1000b, 0x1000c}
			var them []peer
			for i, tag := range tags {
				them = append(them, impl.start(t, settings{versions: otr.Set(otr.V3), key: []string{"bob", "carol"}[i], instance: tag}))
			}
			var read [3][]string
			var toUs, toThem []string
			take := func(who int, events []event) {
				for _, e := range events {
					switch {
					case e.kind == "wire" && who == 2:
						toThem = append(toThem, e.args[0])
					case e.kind == "wire":
						toUs = append(toUs, e.args[0])
					case e.kind == "plain":
						read[who] = append(read[who], e.args[0])
					}
				}
			}
			pump := func() {
				for steps := 0; len(toUs)+len(toThem) > 0; steps++ {
					if steps > 200 {
						t.Fatal("they never stop")
					}
					for _, m := range toThem { // everything reaches both, as to a bare address
						for i := range them {
							take(i, them[i].do(t, "recv", m))
						}
					}
					toThem = nil
					for _, m := range toUs {
						take(2, us.do(t, "recv", m))
					}
					toUs = nil
				}
			}
			// We answer one query with one commit, which reaches both.
			commit, err := us.conv.Commit(us.clock, otr.V3)
			if err != nil {
				t.Fatal(err)
			}
			toThem = append(toThem, string(commit))
			pump()
			list := us.conv.Sessions()
			if len(list) != 2 {
				t.Fatalf("sessions: %+v", list)
			}
			// The second key is another one than the first accepted: nothing goes to it before
			// a person says so.
			if _, err := us.conv.Encrypt(us.clock, list[1].ID, []byte("too early")); err != otr.ErrKeyChanged {
				t.Errorf("to a key nobody accepted: %v", err)
			}
			us.conv.Accept(list[1].Fingerprint)
			for i := range tags {
				m, err := us.conv.Encrypt(us.clock, list[i].ID, []byte("for you alone"))
				if err != nil {
					t.Fatal(err)
				}
				toThem = append(toThem, string(m))
				pump()
				take(i, them[i].do(t, "send", fmt.Sprintf("from %d", i)))
				pump()
			}
			for i := range them {
				if len(read[i]) != 1 || read[i][0] != "for you alone" {
					t.Errorf("instance %d read %q", i, read[i])
				}
			}
			if fmt.Sprint(read[2]) != "[from 0 from 1]" {
				t.Errorf("we read %q", read[2])
			}
		})
	}
}
