package text

import (
	"html"
	"maps"
	"regexp"
	"slices"
	"strings"

	"otrproxy/otrlayer/otr"
)

// What stands inside an OTR data message is text for some clients and HTML for
// others (seen: Pidgin and bitlbee escape on sending and strip
// tags on receiving, mcabber unescapes, Profanity takes everything as it is).

// ToPayload escapes what a receiver of HTML would take for markup, so that
// nothing is lost with any program; at worst it looks odd. A program known to show
// everything as it is gets it so, and so does any program a text that says the same either way.
func ToPayload(text string, reads Format) string {
	switch breaks := reads == Hypertext && strings.ContainsRune(text, '\n'); {
	case breaks:
		return strings.ReplaceAll(escapes.Replace(text), "\n", "<br>")
	case reads == PlainText, (reads == either || !strings.ContainsRune(text, '<')) && !unescapes(text):
		return text
	}
	return escapes.Replace(text)
}

// unescapes reports whether a reader of HTML may take an ampersand in a text for a character
// reference. Programs look for its end in different ways, or not at all (as the HTML standard
// does for some names), and some do not mind capitals.
func unescapes(text string) bool {
	if !strings.ContainsRune(text, '&') {
		return false
	}
	small := strings.ToLower(text)
	return html.UnescapeString(text) != text || html.UnescapeString(small) != small || anyReference.MatchString(text)
}

var anyReference = regexp.MustCompile(`&#|&[A-Za-z][A-Za-z0-9]*;`)

var escapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// PayloadLen is the length of what toPayload makes for a program that is not known.
func PayloadLen(text string) int {
	return len(text) + 4*strings.Count(text, "&") + 3*(strings.Count(text, "<")+strings.Count(text, ">")+strings.Count(text, "\n"))
}

// A Format is what a program takes the text inside data messages for.
type Format uint8

// The formats.
const (
	Unknown Format = iota
	PlainText
	either    // plain text, perhaps with HTML's character references: who writes plain text reads so
	entities  // with HTML's character references, and tags as they are
	Hypertext // with tags, and line ends that count for nothing
)

// A Habit is how a program writes and reads that text.
type Habit struct{ Writes, Reads Format }

// habits are those of programs that name themselves in their presence, by that node
// (XEP-0115). A program that speaks version 2 only is meant with that version alone:
// what speaks another one in its name is a proxy like this before it.
var habits = map[string]struct {
	Habit
	only otr.Version
}{
	"http://mcabber.com/caps":        {Habit{PlainText, entities}, 0},
	"http://profanity-im.github.io":  {Habit{PlainText, PlainText}, otr.V2},
	"https://profanity-im.github.io": {Habit{PlainText, PlainText}, otr.V2},
	"https://poez.io":                {Habit{PlainText, entities}, otr.V2},
	"http://pidgin.im/":              {Habit{Hypertext, Hypertext}, 0},
	"http://bitlbee.org/xmpp/caps":   {Habit{Hypertext, Hypertext}, 0},

	"https://github.com/cdidier/irssi-xmpp": {Habit{PlainText, PlainText}, 0},

	// Programs that are known by what they send.
	RawProgram:   {Habit{PlainText, either}, 0},
	AnotherProxy: {Habit{Unknown, Unknown}, 0},
}

// HabitOf is the habit of a program; the zero one for a program that is not known.
func HabitOf(program string) Habit { return habits[program].Habit }

// MayBe reports whether what speaks a version of OTR can be a known program.
func MayBe(program string, version otr.Version) bool {
	known, ok := habits[program]
	return ok && (known.only == 0 || known.only == version)
}

// Programs that are known by what they send.
const (
	RawProgram   = "raw"      // what it sends cannot be HTML
	AnotherProxy = "otrproxy" // a proxy like this one stands before it
)

// KnownProgram is the name of a program whose habits are known, "" for any other.
func KnownProgram(name []byte) string {
	for _, known := range programs {
		if string(name) == known && strings.Contains(known, ":") {
			return known
		}
	}
	return ""
}

var programs = slices.Collect(maps.Keys(habits))

var (
	htmlEntity = regexp.MustCompile(`^&(?:lt|gt|amp|quot|apos|nbsp|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});`)
	anyEntity  = regexp.MustCompile(`^&(?:[A-Za-z][A-Za-z0-9]{1,30}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});`)
	htmlTag    = regexp.MustCompile(`^<(/?)(?i:(html|head|body|div|span|font|p|b|i|u|s|em|strong|a|h[1-6]|ul|ol|li|code|pre|blockquote|br|hr|img))((?:\s[^<>]*)?)(/?)>`)
	anyTag     = regexp.MustCompile(`^<(/?)([A-Za-z][A-Za-z0-9]*)((?:\s[^<>]*)?)(/?)>`)
	voidTag    = regexp.MustCompile(`^(?i:br|hr|img)$`)
	lineBreak  = regexp.MustCompile(`^(?i)<br\s*/?>`)
	address    = regexp.MustCompile(`(?i)\shref\s*=\s*(?:"([^"]*)"|'([^']*)')`)
	// NoHTML is an ampersand or an angle bracket that no program which writes HTML
	// would send.
	NoHTML = regexp.MustCompile(`&(?:[^A-Za-z#]|$)|<(?:[^A-Za-z/!]|$)`)
)

// block are the elements that stand on lines of their own.
var block = regexp.MustCompile(`^(?i:p|div|h[1-6]|ul|ol|li|pre|blockquote|hr)$`)

var (
	// outer is a beginning with an element that holds the text, as prose about one does not.
	outer = regexp.MustCompile(`^<[A-Za-z][^<>]*>\S`)
	// document are the elements that programs begin a text with, and nobody types.
	document = regexp.MustCompile(`^(?i:<html|<body|<font|<[a-z][a-z0-9]*\s+[a-z]+=)`)
)

// FromPayload turns HTML into the text a person wrote and leaves anything else alone. Where the
// program is not known, a payload is HTML when each & begins an entity, each < a known tag, and
// its tags are closed; or, for some programs forget the outer ones, when it begins with a tag,
// closes none that is not open, and either closes one or begins as nobody types.
func FromPayload(p string, writes Format) string {
	if writes == PlainText || !strings.ContainsAny(p, "<&") {
		return p
	}
	tag, entity := htmlTag, htmlEntity
	if writes == Hypertext {
		tag, entity = anyTag, anyEntity
	}
	w := plainWriter{}
	open, closed, astray := map[string]int{}, false, false
	link, linked := "", 0 // the address of the link that is open, and where its text begins
	for i := 0; i < len(p); {
		switch p[i] {
		case '&':
			m := entity.FindString(p[i:])
			if m == "" {
				if writes != Hypertext {
					return p
				}
				m = "&"
			}
			w.text(strings.ReplaceAll(html.UnescapeString(m), "\u00a0", " "))
			i += len(m)
		case '<':
			m := tag.FindStringSubmatch(p[i:])
			if m == nil {
				if writes != Hypertext {
					return p
				}
				w.text("<")
				i++
				continue
			}
			name := strings.ToLower(m[2])
			if block.MatchString(name) {
				w.block()
			}
			switch {
			case lineBreak.MatchString(m[0]):
				w.line()
				w.WriteByte('\n')
			case voidTag.MatchString(name) || m[4] == "/":
			case m[1] == "/":
				open[name]--
				closed, astray = true, astray || open[name] < 0
				if name == "a" && link != "" {
					if text := w.String()[linked:]; text != link && "mailto:"+text != link {
						w.text(" (" + link + ")") // it leads elsewhere than it says
					}
					link = ""
				}
			default:
				open[name]++
				if at := address.FindStringSubmatch(m[3]); name == "a" && at != nil {
					w.line()
					link, linked = html.UnescapeString(at[1]+at[2]), w.Len()
				}
			}
			i += len(m[0])
		default:
			j := i + 1
			for j < len(p) && p[j] != '&' && p[j] != '<' {
				j++
			}
			w.text(p[i:j])
			i = j
		}
	}
	if writes != Hypertext {
		left := false
		for _, n := range open {
			left = left || n != 0
		}
		if astray || left && (!outer.MatchString(p) || !closed && !document.MatchString(p)) {
			return p
		}
	}
	return w.String()
}

// A plainWriter writes the text of HTML, in which blocks stand on lines of their own.
type plainWriter struct {
	strings.Builder
	due bool // a new line, if more comes
}

// block notes that a block begins or ends.
func (w *plainWriter) block() {
	w.due = w.due || w.Len() > 0 && !strings.HasSuffix(w.String(), "\n")
}

// line begins the new line that is due.
func (w *plainWriter) line() {
	if w.due {
		w.WriteByte('\n')
		w.due = false
	}
}

func (w *plainWriter) text(s string) {
	if w.due && strings.TrimSpace(s) == "" {
		return // between blocks
	}
	w.line()
	w.WriteString(s)
}
