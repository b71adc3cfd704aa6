package filter

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"otrproxy/config"
)

func drawn(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func proto(b []byte, fields ...any) []byte {
	for i := 0; i < len(fields); i += 2 {
		n := protowire.Number(fields[i].(int))
		switch v := fields[i+1].(type) {
		case int:
			b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(v))
		case []byte:
			b = protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
		}
	}
	return b
}

func typed(b []byte) []byte { return append([]byte{5}, b...) }

// signal is a key as libsignal's programs encrypt it for a device.
func signal(prekey bool, key []byte) []byte {
	m := append(proto([]byte{0x33}, 1, typed(drawn(32)), 2, 7, 3, 0, 4, key), drawn(8)...)
	if prekey {
		m = proto([]byte{0x33}, 5, 123456, 1, 42, 6, 1, 2, typed(drawn(32)), 3, typed(drawn(32)), 4, m)
	}
	return m
}

// newer is the same of OMEMO 2.
func newer(exchange bool, key []byte) []byte {
	m := proto(nil, 1, drawn(16), 2, proto(nil, 1, 3, 2, 0, 3, drawn(32), 4, key))
	if exchange {
		m = proto(nil, 1, 42, 2, 1, 3, drawn(32), 4, drawn(32), 5, m)
	}
	return m
}

func sealedMessage(t testing.TB, x string) Composed {
	t.Helper()
	return Compose(parsed(t, "<message to='bob@example.org' type='chat'>"+x+"</message>").Root(), builtIn, nil)
}

func legacyOMEMO(prekey string, iv, payload, key []byte) string {
	x := "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='27183'><key rid='31415'>" + b64(signal(false, key)) + "</key><key rid='12321'" + prekey + ">" + b64(signal(true, key)) + "</key><iv>" + b64(iv) + "</iv></header>"
	if payload != nil {
		x += "<payload>" + b64(payload) + "</payload>"
	}
	return x + "</encrypted>"
}

func newOMEMO(payload, key []byte) string {
	x := "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='27183'><keys jid='bob@example.org'><key rid='31415'>" + b64(newer(false, key)) + "</key><key rid='12321' kex='true'>" + b64(newer(true, key)) + "</key></keys></header>"
	if payload != nil {
		x += "<payload>" + b64(payload) + "</payload>"
	}
	return x + "</encrypted>"
}

// Messages as real programs encrypt them pass whole.
func TestRealCiphertextPasses(t *testing.T) {
	pretty := func(s string) string { // in lines, as older programs of Android write it
		var out strings.Builder
		for i := 0; i < len(s); i += 76 {
			out.WriteString(s[i:min(i+76, len(s))] + "\n")
		}
		return out.String()
	}
	for name, x := range map[string]string{
		"OMEMO of Conversations":    legacyOMEMO(" prekey='true'", drawn(12), drawn(40), drawn(48)),
		"OMEMO of Dino, prekey 1":   legacyOMEMO(" prekey='1'", drawn(16), drawn(3), drawn(48)),
		"OMEMO, a code in the text": legacyOMEMO(" prekey='true'", drawn(16), drawn(200), drawn(32)),
		"OMEMO, the key alone":      legacyOMEMO(" prekey='true'", drawn(12), nil, drawn(48)),
		"OMEMO in lines":            strings.Replace(legacyOMEMO("", drawn(12), []byte{1, 2, 3}, drawn(48)), "AQID", pretty(b64(drawn(300))), 1),
		"OMEMO 2":                   newOMEMO(drawn(160), drawn(64)),
		"OMEMO 2, the key alone":    newOMEMO(nil, drawn(64)),
		"a prefix":                  strings.NewReplacer("<encrypted xmlns=", "<o:encrypted xmlns:o=", "</encrypted", "</o:encrypted", "<header", "<o:header", "</header", "</o:header", "<key", "<o:key", "</key", "</o:key", "<iv", "<o:iv", "</iv", "</o:iv").Replace(legacyOMEMO("", drawn(12), nil, drawn(48))),
	} {
		c := sealedMessage(t, x)
		if c.Opaque == nil {
			t.Errorf("%s is refused: %s", name, x)
			continue
		}
		out := c.EndToEnd(parsed(t, "<message to='bob@example.org'/>").Root())
		st := parsed(t, string(out))
		if again := Compose(st.Root(), builtIn, nil); again.Opaque == nil {
			t.Errorf("%s: what leaves is none: %s", name, out)
		}
	}
}

// armor is what stands in a file of GnuPG's between the head and the foot.
func armor(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, s, _ := strings.Cut(string(b), "\n\n")
	s, _, _ = strings.Cut(s, "\n-----END")
	return s
}

// What GnuPG makes passes in its place, with its checksum and without; in another place
// it does not, nor do messages in which words can be read.
func TestOpenPGPByItsKind(t *testing.T) {
	files, _ := filepath.Glob("testdata/openpgp/*.asc")
	if len(files) < 14 {
		t.Fatalf("only %d files", len(files))
	}
	kinds := map[byte]Check{'m': armoredAs(openPGPMessage), 's': armoredAs(openPGPSignature), 'k': armoredAs(openPGPKey(label))}
	for _, file := range files {
		text, is := armor(t, file), filepath.Base(file)[0]
		sum := strings.LastIndexByte(text, '\n')
		for kind, check := range kinds {
			if got := check([]byte(text)); got != (kind == is) {
				t.Errorf("%s as %c: %v", file, kind, got)
			}
			if got := check([]byte(text[:sum])); got != (kind == is) {
				t.Errorf("%s without its checksum, as %c: %v", file, kind, got)
			}
		}
		check := kinds[is]
		if check == nil {
			continue
		}
		b, _ := decoded(text[:sum])
		for what, bad := range map[string]string{
			"a wrong checksum":     text[:sum] + "\n=AAAA",
			"something behind":     b64(append(b[:len(b):len(b)], "meet me at noon"...)),
			"a packet behind":      b64(append(b[:len(b):len(b)], 0xcb, 15, 'b', 0, 0, 0, 0, 0, 'm', 'e', 'e', 't', ' ', 'm', 'e', ' ', 'a')),
			"its end missing":      b64(b[:len(b)-20]),
			"blanks in it":         text[:8] + " " + text[8:sum],
			"the head of an armor": "Comment: meet me\n\n" + text,
		} {
			if check([]byte(bad)) {
				t.Errorf("%s with %s passes", file, what)
			}
		}
	}
	for file, want := range map[string]bool{"k-alice_example_org": true, "k-xmpp_bob_example_org": true, "k-carol_example_org": false} {
		if got := armoredAs(openPGPKey(mailbox))([]byte(armor(t, "testdata/openpgp/"+file+".asc"))); got != want {
			t.Errorf("%s, by address alone: %v", file, got)
		}
	}
}

// Every length of OpenPGP's newer framing is read as it was written.
func TestOpenPGPLengths(t *testing.T) {
	body := func(n int) []byte { return append([]byte{1}, drawn(n)...) }
	esk := append([]byte{0xc1, 44, 3, 1, 2, 3, 4, 5, 6, 7, 8, 25}, append(drawn(32), 1, 9)...)
	partial := func(b []byte) (out []byte) {
		out = append(out, 0xd2)
		for len(b) > 512 {
			out = append(append(out, 0xe0|9), b[:512]...)
			b = b[512:]
		}
		if len(b) < 192 {
			return append(append(out, byte(len(b))), b...)
		}
		return append(append(out, byte((len(b)-192)>>8)+192, byte(len(b)-192)), b...)
	}
	for _, n := range []int{40, 190, 191, 192, 511, 512, 513, 8000, 70000} {
		b := body(n)
		for name, m := range map[string][]byte{
			"five bytes": append(binary.BigEndian.AppendUint32([]byte{0xd2, 255}, uint32(len(b))), b...),
			"partial":    partial(b),
		} {
			if !openPGPMessage(append(esk[:len(esk):len(esk)], m...)) {
				t.Errorf("%d bytes with %s are refused", n, name)
			}
		}
	}
}

// dressed are ways to have words in what looks sealed.
func dressed(word string) map[string]string {
	w := []byte(word)
	pad := func(n int) []byte { return append(w[:len(w):len(w)], drawn(n-len(w)%n)...) }
	pkesk := append([]byte{0xc1, 44, 3, 1, 2, 3, 4, 5, 6, 7, 8, 25}, append(drawn(32), 1, 9)...)
	seipd := func(b []byte) []byte {
		return append(append(pkesk[:len(pkesk):len(pkesk)], 0xd2, byte(len(b)+1), 1), b...)
	}
	return map[string]string{
		"OMEMO, payload":             legacyOMEMO("", drawn(12), w, drawn(48)),
		"OMEMO, words in a payload":  legacyOMEMO("", drawn(12), append(append(drawn(30), w...), drawn(30)...), drawn(48)),
		"OMEMO, key":                 legacyOMEMO("", drawn(12), drawn(20), pad(16)),
		"OMEMO, vector":              legacyOMEMO("", append(w, w...)[:12], drawn(20), drawn(48)),
		"OMEMO, vector of 16":        legacyOMEMO("", append(w, w...)[:16], drawn(20), drawn(48)),
		"OMEMO without a key":        "<encrypted xmlns='eu.siacs.conversations.axolotl'><payload>" + b64(w) + "</payload></encrypted>",
		"OMEMO with an empty header": "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/><payload>" + b64(drawn(40)) + "</payload></encrypted>",
		"OMEMO, no framing":          "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>" + b64(w) + "</key><iv>" + b64(drawn(12)) + "</iv></header></encrypted>",
		"OMEMO, trailing":            "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>" + b64(append(signal(true, drawn(48)), proto(nil, 9, w)...)) + "</key><iv>" + b64(drawn(12)) + "</iv></header></encrypted>",
		"OMEMO, two payloads":        strings.Replace(legacyOMEMO("", drawn(12), drawn(20), drawn(48)), "<payload>", "<payload>"+b64(w)+"</payload><payload>", 1),
		"OMEMO, a child":             strings.Replace(legacyOMEMO("", drawn(12), drawn(20), drawn(48)), "<payload>", "<note>"+word+"</note><payload>", 1),
		"OMEMO, an attribute":        strings.Replace(legacyOMEMO("", drawn(12), drawn(20), drawn(48)), "<payload>", "<payload n='"+word+"'>", 1),
		"OMEMO, a device":            strings.Replace(legacyOMEMO("", drawn(12), drawn(20), drawn(48)), "27183", word, 1),
		"OMEMO 2, payload":           newOMEMO(pad(16), drawn(64)),
		"OMEMO 2, key":               newOMEMO(drawn(32), pad(16)),
		"OMEMO 2, no framing":        "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'><keys jid='a@b'><key rid='2'>" + b64(w) + "</key></keys></header></encrypted>",
		"OX, text":                   "<openpgp xmlns='urn:xmpp:openpgp:0'>" + b64(w) + "</openpgp>",
		"OX, literal":                "<openpgp xmlns='urn:xmpp:openpgp:0'>" + b64(append([]byte{0xcb, byte(6 + len(w)), 'b', 0, 0, 0, 0, 0}, w...)) + "</openpgp>",
		"OX, ciphertext":             "<openpgp xmlns='urn:xmpp:openpgp:0'>" + b64(seipd(append(append(drawn(20), w...), drawn(20)...))) + "</openpgp>",
		"XEP-0027, text":             "<x xmlns='jabber:x:encrypted'>" + b64(w) + "</x>",
		"XEP-0027, bare":             "<x xmlns='jabber:x:encrypted'>" + word + "</x>",
		"XEP-0027, first byte":       "<x xmlns='jabber:x:encrypted'>" + b64(append([]byte{0x85}, w...)) + "</x>",
		"XEP-0027, ciphertext":       "<x xmlns='jabber:x:encrypted'>" + b64(seipd(append(append(drawn(20), w...), drawn(20)...))) + "</x>",
	}
}

// Words dressed as ciphertext never leave as such.
func TestDressedWordsNeverPass(t *testing.T) {
	for _, word := range []string{"meet me at noon by the river", "встретимся в полдень", "the quick brown fox jumps over it all " + strings.Repeat("and over ", 10)} {
		for name, x := range dressed(word) {
			if c := sealedMessage(t, x); c.Opaque != nil {
				t.Errorf("%q as %s passes: %s", word, name, x)
			}
		}
	}
	if c := sealedMessage(t, legacyOMEMO("", drawn(12), []byte("meet at noon"), drawn(48))); c.Opaque != nil {
		t.Error("twelve bytes of text pass as a payload")
	}
}

// Text is not random, however it is written; what is random is refused less often than the
// bounds say.
func TestRandomIsToldFromText(t *testing.T) {
	text := strings.Repeat("It was a bright cold day in April, and the clocks were striking thirteen. ", 4)
	var wide, shifted []byte
	for _, c := range []byte(text) {
		wide = append(wide, c, 0)
		shifted = append(shifted, c+100)
	}
	for name, b := range map[string][]byte{
		"text": []byte(text), "UTF-16": wide, "shifted": shifted, "Russian": []byte(strings.Repeat("Был холодный ясный апрельский день. ", 3)),
		"Latin-1": []byte(strings.Repeat("\xfcber \xe4ndern \xf6ffnen ", 8)), "hex": []byte("6d656574206d65206174206e6f6f6e"),
		"a word in noise": append(append(drawn(200), "meet me at noon, please"...), drawn(200)...), "zeros": make([]byte, 40),
	} {
		if payloadChance.random(b) {
			t.Errorf("%s is random", name)
		}
	}
	// A ChaCha8 from a seed, so that a failure is one tomorrow. Of 400,000 payloads four may be
	// refused; more than twenty would be by a chance of less than one in a hundred million.
	source, refused := mrand.NewChaCha8([32]byte{1}), 0
	var b [1024]byte
	for i := range 400_000 {
		n := []int{12, 13, 16, 20, 32, 64}[i%6]
		if i%1000 == 0 {
			n = len(b)
		}
		source.Read(b[:n])
		if !payloadChance.random(b[:n]) {
			refused++
		}
	}
	t.Logf("%d of 400,000 refused", refused)
	if refused > 20 {
		t.Errorf("%d of 400,000 refused", refused)
	}
}

// Public keys pass as programs publish them, and words in them never do, whatever the rule
// says of status.
func TestPublishedKeysAreKeys(t *testing.T) {
	publish := func(payload string) string {
		return "<iq type='set' id='1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:omemo:2:bundles'><item id='current'>" + payload + "</item></publish></pubsub></iq>"
	}
	legacy := func(key []byte) string {
		return "<bundle xmlns='eu.siacs.conversations.axolotl'><signedPreKeyPublic signedPreKeyId='1'>" + b64(typed(drawn(32))) + "</signedPreKeyPublic><signedPreKeySignature>" + b64(drawn(64)) + "</signedPreKeySignature><identityKey>" + b64(typed(drawn(32))) + "</identityKey><prekeys><preKeyPublic preKeyId='1'>" + b64(key) + "</preKeyPublic></prekeys></bundle>"
	}
	omemo2 := func(key []byte) string {
		return "<bundle xmlns='urn:xmpp:omemo:2'><spk id='1'>" + b64(drawn(32)) + "</spk><spks>" + b64(drawn(64)) + "</spks><ik>" + b64(drawn(32)) + "</ik><prekeys><pk id='1'>" + b64(key) + "</pk></prekeys></bundle>"
	}
	pubkey := func(file string) string {
		return "<pubkey xmlns='urn:xmpp:openpgp:0'><data>" + armor(t, "testdata/openpgp/"+file) + "</data></pubkey>"
	}
	word := []byte("meet me at noon by the old river")
	for payload, want := range map[string]config.Allow{
		"<list xmlns='eu.siacs.conversations.axolotl'><device id='123'/></list>":       "",
		"<devices xmlns='urn:xmpp:omemo:2'><device id='123'/></devices>":               "",
		"<devices xmlns='urn:xmpp:omemo:2'><device id='123' label='Gajim'/></devices>": config.Status,
		legacy(typed(drawn(32))):             "",
		legacy(typed(word)):                  config.Services,
		omemo2(drawn(32)):                    "",
		omemo2(word):                         config.Services,
		pubkey("k-xmpp_bob_example_org.asc"): "",
		pubkey("k-carol_example_org.asc"):    config.Status,
		pubkey("x-onepass.asc"):              config.Services,
	} {
		root := parsed(t, publish(payload)).Root()
		for _, allow := range []config.Allow{"", config.Status, config.Services} {
			what := RequestOut(root, ToServer, &config.Rule{Policy: config.Require, Allow: []config.Allow{allow}})
			if passes := want == "" || allow == want || allow == config.Services; (what == "") != passes {
				t.Errorf("with %q: %q of %s", allow, what, payload)
			}
		}
	}
}

// A signature in presence is one, or it is left out.
func TestSignatureInPresence(t *testing.T) {
	sig := armor(t, "testdata/openpgp/s-alice_example_org.asc")
	for text, stays := range map[string]bool{sig: true, "meet me at noon": false, b64([]byte("meet me at noon!")): false, armor(t, "testdata/openpgp/x-notation.asc"): false, armor(t, "testdata/openpgp/x-onepass.asc"): false} {
		st := parsed(t, "<presence to='bob@example.org'><x xmlns='jabber:x:signed'>"+text+"</x></presence>")
		out := string(PresenceOut(nil, st, builtIn, false))
		if strings.Contains(out, "jabber:x:signed") != stays || !stays && out != "<presence to='bob@example.org'/>" {
			t.Errorf("%.40s: %s", text, out)
		}
	}
}

// FuzzSealed has nothing crash on what is no ciphertext.
func FuzzSealed(f *testing.F) {
	files, _ := filepath.Glob("testdata/openpgp/*.asc")
	for _, file := range files {
		b, _ := decoded(strings.SplitN(armor(f, file), "\n=", 2)[0])
		f.Add(b)
	}
	f.Add(signal(true, drawn(48)))
	f.Add(newer(true, drawn(64)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if openPGPMessage(b) && (openPGPSignature(b) || openPGPKey(label)(b)) {
			t.Error("two kinds at once")
		}
		signalMessage(b)
		omemo2Message(b)
		unarmored(string(b))
		payloadChance.random(b)
	})
}
