package otrlayer

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"otrproxy/proxy/control"
)

// inWords is a notice as people read it.
func inWords(n Notice) string {
	out := control.Notice{What: string(n.What), Contact: n.Contact, Fingerprint: n.Fingerprint.String(), Own: n.Own.String(), Version: n.Version, Spoken: n.Spoken, Allowed: n.Allowed,
		Question: n.Question, N: n.N, Kept: n.Kept, Told: n.Told, Within: n.Within, Why: whyInWords(n.Why, n.Contact), Texts: n.Texts}
	for _, f := range n.Others {
		out.Others = append(out.Others, f.String())
	}
	return out.String()
}

func whyInWords(w Why, contact string) control.Why {
	return control.Why{Cause: string(w.Cause), Contact: contact, Reason: w.Reason, Unprotected: w.Unprotected}
}

// Everything there is to tell has words, and every cause: what the catalogue does not know is
// told to nobody. No place for a value is left in a sentence.
func TestEveryNoticeHasWords(t *testing.T) {
	source, err := os.ReadFile("notice.go")
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`What = "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(said) < 40 {
		t.Fatalf("only %d found", len(said))
	}
	for _, m := range said {
		for _, n := range []Notice{{}, {N: 1}, {N: 2}, {N: 2, Told: true}, {N: 1, Told: true}, {Version: 2}, {Kept: true}} {
			n.What, n.Contact, n.Why = What(m[1]), "bob@y", Why{Cause: CauseExpired}
			if line := inWords(n); len(line) < 10 || strings.ContainsAny(line, "{}") {
				t.Errorf("%s: %q", m[1], line)
			}
		}
	}
	for _, c := range Causes {
		if line := whyInWords(Why{Cause: c}, "bob@y").String(); line == "Not sent." || strings.ContainsAny(line, "{}") {
			t.Errorf("%s: %q", c, line)
		}
	}
}

// What a contact has written is never taken for a place of ours.
func TestForeignWordsAreNoPlaces(t *testing.T) {
	n := Notice{What: SaySMPAsked, Contact: "{question}@y", Question: "what is {own}, {contact}?"}
	if line := inWords(n); !strings.Contains(line, `"what is {own}, {contact}?"`) || !strings.HasPrefix(line, "{question}@y ") {
		t.Errorf("%q", line)
	}
}
