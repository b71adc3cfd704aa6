package interop

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"math/big"
	"os"
	"strings"
	"testing"

	"otrproxy/otrlayer/otr"
	"otrproxy/test/need"

	"github.com/coyim/otr3"
)

// otr3Peer is github.com/coyim/otr3 as a peer.
type otr3Peer struct {
	settings
	conv *otr3.Conversation
	got  []event
	was  bool
}

func newOTR3(t testing.TB, s settings) peer {
	p := &otr3Peer{settings: s}
	p.forget(t)
	return p
}

func otr3Key(t testing.TB, name string) *otr3.DSAPrivateKey {
	t.Helper()
	accounts, err := otr3.ImportKeysFromFile(keyFile(t, name, "peer@example.org"))
	if err != nil || len(accounts) != 1 {
		t.Fatalf("otr3 does not read our key file: %v", err)
	}
	return accounts[0].Key.(*otr3.DSAPrivateKey)
}

func (p *otr3Peer) forget(t testing.TB) {
	p.conv = &otr3.Conversation{Rand: rand.Reader}
	p.was = false
	if p.versions.Has(otr.V2) {
		p.conv.Policies.AllowV2()
	}
	if p.versions.Has(otr.V3) {
		p.conv.Policies.AllowV3()
	}
	if p.tag {
		p.conv.Policies.SendWhitespaceTag()
	}
	p.conv.Policies.WhitespaceStartAKE()
	p.conv.Policies.ErrorStartAKE()
	p.conv.SetOurKeys([]otr3.PrivateKey{otr3Key(t, p.key)})
	p.conv.InitializeInstanceTag(p.instance)
	if p.frag > 0 {
		p.conv.SetFragmentSize(uint16(p.frag))
	}
	p.conv.SetSecurityEventHandler(p)
	p.conv.SetSMPEventHandler(p)
	p.conv.SetMessageEventHandler(p)
	p.conv.SetReceivedKeyHandler(p)
}

func (p *otr3Peer) add(kind string, args ...string) { p.got = append(p.got, event{kind, args}) }

func (p *otr3Peer) HandleSecurityEvent(e otr3.SecurityEvent) {
	switch e {
	case otr3.GoneSecure, otr3.StillSecure:
		p.add("secure", fmt.Sprintf("%x", p.conv.GetTheirKey().Fingerprint()), "", map[bool]string{false: "0", true: "1"}[e == otr3.StillSecure])
		p.was = true
	case otr3.GoneInsecure:
		if p.was {
			p.add("finished")
		}
		p.was = false
	}
}

func (p *otr3Peer) HandleSMPEvent(e otr3.SMPEvent, _ int, question string) {
	switch e {
	case otr3.SMPEventAskForAnswer:
		p.add("smp", "question", question)
	case otr3.SMPEventAskForSecret:
		p.add("smp", "ask")
	case otr3.SMPEventSuccess:
		p.add("smp", "success")
	case otr3.SMPEventFailure:
		p.add("smp", "failure")
	case otr3.SMPEventAbort:
		p.add("smp", "abort")
	case otr3.SMPEventCheated:
		p.add("smp", "cheated")
	}
}

func (p *otr3Peer) HandleMessageEvent(e otr3.MessageEvent, _ []byte, _ error, _ ...interface{}) {
	if e == otr3.MessageEventReceivedMessageUnreadable || e == otr3.MessageEventReceivedMessageNotInPrivate {
		p.add("unreadable")
	}
}

func (p *otr3Peer) ReceivedSymmetricKey(use uint32, data, key []byte) {
	p.add("symkey", fmt.Sprint(use), string(key), string(data))
}

func (p *otr3Peer) do(t testing.TB, words ...string) []event {
	t.Helper()
	p.got = nil
	wire := func(list []otr3.ValidMessage, err error) {
		t.Helper()
		if err != nil {
			p.add("refused", err.Error())
		}
		for _, m := range list {
			p.add("wire", string(m))
		}
	}
	one := func(m otr3.ValidMessage) { wire([]otr3.ValidMessage{m}, nil) }
	switch verb := strings.Join(words[:min(2, len(words))], " "); {
	case words[0] == "recv":
		was := p.conv.IsEncrypted()
		plain, out, err := p.conv.Receive(otr3.ValidMessage(words[1]))
		wire(out, err)
		if plain != nil {
			kind := "clear"
			if strings.HasPrefix(words[1], "?OTR") && was {
				kind = "plain"
			}
			p.add(kind, string(plain))
		}
	case words[0] == "send":
		wire(p.conv.Send(otr3.ValidMessage(words[1])))
	case words[0] == "query":
		one(p.conv.QueryMessage())
	case words[0] == "end":
		wire(p.conv.End())
	case words[0] == "restart":
		p.forget(t)
	case words[0] == "instance":
		fmt.Sscanf(words[1], "%x", &p.instance)
		p.forget(t)
	case verb == "smp start":
		wire(p.conv.StartAuthenticate("", []byte(words[2])))
	case verb == "smp ask":
		wire(p.conv.StartAuthenticate(words[2], []byte(words[3])))
	case verb == "smp answer":
		wire(p.conv.ProvideAuthenticationSecret([]byte(words[2])))
	case verb == "smp abort":
		wire(p.conv.AbortAuthentication())
	case words[0] == "symkey":
		var use uint32
		fmt.Sscan(words[1], &use)
		key, out, err := p.conv.UseExtraSymmetricKey(use, []byte(words[2]))
		wire(out, err)
		p.add("symkey", words[1], string(key), words[2])
	}
	return p.got
}

// Keys cross: ours are otr3's and otr3's are ours.
func TestOTR3ReadsOurKeys(t *testing.T) {
	for _, name := range []string{"alice", "bob", "carol"} {
		k := otr3Key(t, name)
		if want := need.Key(t, name).Fingerprint(); !bytes.Equal(k.PublicKey().Fingerprint(), want[:]) {
			t.Errorf("%s: otr3 reads %x", name, k.PublicKey().Fingerprint())
		}
	}
	theirs := &otr3.DSAPrivateKey{}
	if err := theirs.Generate(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if theirs.PrivateKey.X.Cmp(big.NewInt(0)) <= 0 {
		t.Fatal("no key")
	}
	path := keyFile(t, "alice", "x")
	if err := otr3.ExportKeysToFile([]*otr3.Account{{Name: "someone@example.org", Protocol: "prpl-jabber", Key: theirs}}, path); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	k, err := otr.FindKey(file, func(string, string) bool { return true })
	if err != nil || k == nil {
		t.Fatalf("%v in %s", err, file)
	}
	if fp := k.Fingerprint(); !bytes.Equal(fp[:], theirs.PublicKey().Fingerprint()) {
		t.Errorf("we read %s, otr3 has %x", fp, theirs.PublicKey().Fingerprint())
	}
}
