package otr

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

// spellings are other ways to write an encoded message that say the same.
func spellings(t *testing.T, message string) map[string]string {
	t.Helper()
	body := strings.TrimSuffix(strings.TrimPrefix(message, "?OTR:"), ".")
	raw, err := base64.StdEncoding.DecodeString(body)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{
		"a line end in it":           "?OTR:" + body[:60] + "\r\n" + body[60:] + ".",
		"a line end in its head":     "?OTR:" + body[:5] + "\n" + body[5:] + ".",
		"a blank in its head":        "?OTR:" + body[:9] + " " + body[9:] + ".",
		"blanks and tabs":            "?OTR:" + body[:30] + " \t " + body[30:] + "\t.",
		"lines of 64":                "?OTR:" + strings.Join(chunks(body, 64), "\n") + ".",
		"text behind it":             message + " and more",
		"markup around it":           "<p>" + message + "</p>",
		"without padding":            "?OTR:" + strings.TrimRight(body, "=") + ".",
		"other MAC keys revealed":    string(encode(append(bytes.Clone(raw[:len(raw)-4]), 0, 0, 0, 3, 'a', 'b', 'c'))),
		"cut behind the MAC":         string(encode(raw[:len(raw)-4])),
		"something behind the last":  string(encode(append(bytes.Clone(raw), "tail"...))),
		"more padding than it needs": "?OTR:" + strings.TrimRight(body, "=") + "====.",
	}
	if i := strings.IndexByte(body, '='); i > 0 {
		c := alphabet[strings.IndexByte(alphabet, body[i-1])^1]
		out["other spare bits"] = "?OTR:" + body[:i-1] + string(c) + body[i:] + "."
	}
	return out
}

func chunks(s string, n int) (out []string) {
	for len(s) > n {
		out, s = append(out, s[:n]), s[n:]
	}
	return append(out, s)
}

// A data message is the same one however it is written, and its text is read once.
func TestSpellingNeverMakesAnotherMessage(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		for size := range 3 { // of all lengths modulo 3, so with each padding
			alice, bob := private(t, v)
			text := "something of some length, so that there is a body" + strings.Repeat("x", size)
			alice.say(text)
			message := alice.out[0]
			first := Parse([]byte(message))
			others := spellings(t, message)
			for name, again := range others {
				w := Parse([]byte(again))
				if w.Kind != Encoded || w.Type != Data {
					t.Errorf("%s: taken for another kind, %v", name, w.Kind)
				} else if w.Sum(new([]byte)) != first.Sum(new([]byte)) {
					t.Errorf("%s: taken for another message", name)
				}
			}
			bob.receive(others["lines of 64"])
			bob.read(text)
		}
	})
}

// A message of the key exchange that a program has broken into lines, wherever, is none
// for people: it is read as what it is.
func TestBrokenHandshakeIsNoText(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		alice, bob := newPair(t, Set(v))
		alice.commit(v)
		for _, step := range []struct {
			from, to *side
			kind     Type
		}{{alice, bob, DHCommit}, {bob, alice, DHKey}, {alice, bob, RevealSignature}, {bob, alice, Signature}} {
			if len(step.from.out) != 1 {
				t.Fatalf("%#x: %d messages", step.kind, len(step.from.out))
			}
			message := step.from.out[0]
			step.from.out = nil
			for at := len(encodedMark); at < len(encodedMark)+20; at++ {
				broken := message[:at] + "\r\n" + message[at:]
				if m := Parse([]byte(broken)); m.Kind != Encoded || m.Type != step.kind {
					t.Errorf("%#x, broken after %d characters: taken for kind %v, type %#x", step.kind, at, m.Kind, m.Type)
				}
				if cut := broken[:len(broken)-9] + "."; Parse([]byte(cut)).Kind == Encoded && at < len(encodedMark)+16 {
					t.Errorf("%#x, broken after %d characters: half a message is taken for one", step.kind, at)
				}
			}
			step.to.receive(message[:8] + "\n" + message[8:])
		}
		alice.say("now private")
		bob.receive(alice.out[0])
		bob.read("now private")
	})
}

// What people write about OTR is text, though its first words are base64 without blanks.
func TestWordsNeverCiphertext(t *testing.T) {
	for _, text := range []string{
		"?OTR:AAMD is how they all begin.",
		"?OTR:AAMD\nis how they all begin and none of them is any shorter than this one.",
		"?OTR:AAMC and ?OTR:AAMD are two of them.",
	} {
		if k := Parse([]byte(text)).Kind; k != Plain {
			t.Errorf("%q is taken for %v", text, k)
		}
	}
}
