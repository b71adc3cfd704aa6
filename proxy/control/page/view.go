package page

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"otrproxy/proxy/control"
)

// A view is what a page shows.
type view struct {
	Title  string
	Room   string // path of the pages
	CSRF   string
	Here   string // the page a form comes back to
	Live   bool
	Why    string // a refusal
	Answer *answer

	Status   control.Status
	Contacts []control.ContactLine
	Held     []control.HeldLine
	Keys     []control.KeyLine
	Pins     []server
	Accounts []string

	Contact *control.ContactLine
	Policy  string
	Table   []*control.Command
	Command *control.Command
	Fields  []control.Field
}

// A server is a domain and its pins.
type server struct {
	Domain string
	Pins   []control.PinLine
}

// lookHeader marks the request of a page that follows what happens.
const lookHeader = "X-Otrproxy-Look"

// view makes what all pages show, and what some commands answer.
func (p *Page) view(r *http.Request, v *visitor, title string, names ...string) (*view, error) {
	out := &view{Title: title, Room: v.path(), CSRF: v.csrf, Live: true, Here: strings.TrimPrefix(r.URL.Path, v.path())}
	if r.URL.RawQuery != "" {
		out.Here += "?" + r.URL.RawQuery
	}
	if r.Header.Get(lookHeader) == "" { // a page that only looks anew has not asked for it
		out.Answer = v.takeAnswer()
	}
	for _, name := range names {
		reply, err := p.run(r.Context(), name, nil)
		if err != nil {
			return nil, err
		}
		switch d := reply.Data.(type) {
		case control.Status:
			out.Status = d
		case []control.ContactLine:
			out.Contacts = d
		case []control.HeldLine:
			out.Held = d
		case []control.KeyLine:
			out.Keys = d
		case []control.PinLine:
			for _, l := range d {
				i := slices.IndexFunc(out.Pins, func(s server) bool { return s.Domain == l.Domain })
				if i < 0 {
					out.Pins = append(out.Pins, server{Domain: l.Domain})
					i = len(out.Pins) - 1
				}
				out.Pins[i].Pins = append(out.Pins[i].Pins, l)
			}
		}
	}
	return out, nil
}

// HeldFor are the messages that wait for the contact shown.
func (v *view) HeldFor() (n int) {
	for _, h := range v.Held {
		if v.Contact != nil && h.Account == v.Contact.Account && h.Contact == v.Contact.Contact {
			n++
		}
	}
	return n
}

// With is a form about a contact.
func (v *view) With(account, contact string) about { return about{v, account, contact} }

// An about is what the forms of one contact need.
type about struct {
	*view
	Account, Whom string
}

// grouped is a fingerprint of 40 hex digits in the groups that people read out.
func grouped(hex string) []string {
	hex = strings.ToUpper(hex)
	var out []string
	for len(hex) > 8 {
		out, hex = append(out, hex[:8]), hex[8:]
	}
	if hex != "" {
		out = append(out, hex)
	}
	return out
}

// pinParts is a pin's kind and value.
func pinParts(pin string) []string {
	kind, value, _ := strings.Cut(pin, ":")
	return []string{map[string]string{"sha256": "certificate, SHA-256", "spki-sha256": "key, SHA-256"}[kind], value}
}

func stateWord(s string) string {
	return map[string]string{"plaintext": "Not private", "encrypted": "Private", "finished": "Ended by them"}[s]
}

func trustWord(s string) string {
	return map[string]string{"unverified": "Not verified", "verified": "Verified", "smp": "Verified by a secret", "changed": "Key changed"}[s]
}

func clock(t time.Time) string { return t.Local().Format("15:04") }

func waits(cause string) string {
	switch cause {
	case "key-changed":
		return "your decision about their changed key"
	case "unverified":
		return "their key to be verified"
	}
	return "a private conversation"
}
