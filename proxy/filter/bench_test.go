package filter

import (
	"testing"
)

// What passes unchanged is most of what a client gets: it is to cost next to nothing.
func BenchmarkPresenceUnchanged(b *testing.B) {
	root := parsed(b, `<presence from='bob@example.org/r' to='alice@example.org/c'><show>away</show><priority>5</priority><status>at lunch</status><c xmlns='http://jabber.org/protocol/caps' node='http://pidgin.im/' ver='lV6i//bt2U8Rm0REcX8h4F3Nk3M=' hash='sha-1'/><x xmlns='vcard-temp:x:update'><photo>aabbcc</photo></x></presence>`).Root()
	for b.Loop() {
		if _, unchanged, _ := testVoice.PresenceIn(nil, root, builtIn, false); !unchanged {
			b.Fatal("changed")
		}
	}
}

func BenchmarkAnswerUnchanged(b *testing.B) {
	root := parsed(b, `<iq type='result' id='1' to='alice@example.org/c'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='server' type='im' name='Prosody'/><feature var='urn:xmpp:ping'/><feature var='urn:xmpp:carbons:2'/></query></iq>`).Root()
	r := Request{Voice: testVoice, Rule: builtIn, From: Service, Own: true}
	for b.Loop() {
		if _, p := r.AppendTo(nil, root); p != Unchanged {
			b.Fatal("changed")
		}
	}
}

func BenchmarkChatState(b *testing.B) {
	root := parsed(b, `<message from='bob@example.org/r' to='alice@example.org/c' type='chat' id='1'><composing xmlns='http://jabber.org/protocol/chatstates'/><no-store xmlns='urn:xmpp:hints'/></message>`).Root()
	in := In{Voice: testVoice, Rule: builtIn, Clear: true}
	buf := make([]byte, 0, 1024)
	for b.Loop() {
		in.AppendTo(buf, root)
	}
}
