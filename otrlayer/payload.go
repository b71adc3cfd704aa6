package otrlayer

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

// toPayload escapes what a receiver of HTML would take for markup, so that
// nothing is lost with any program; at worst it looks odd. A program known to show
// everything as it is gets it so.
func toPayload(text string, reads format) string {
	if reads == plainText {
		return text
	}
	return escapes.Replace(text)
}

var escapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// payloadLen is the length of what toPayload makes for a program that is not known.
func payloadLen(text string) int {
	return len(text) + 4*strings.Count(text, "&") + 3*(strings.Count(text, "<")+strings.Count(text, ">"))
}

// A format is what a program takes the text inside data messages for.
type format uint8

const (
	unknown format = iota
	plainText
	hypertext
)

// A habit is how a program writes and reads that text.
type habit struct{ writes, reads format }

// maxPrograms bounds how many known programs are kept track of.
const maxPrograms = 10_000

// habits are those of programs that name themselves in their presence, by that node
// (XEP-0115). A program that speaks version 2 only is meant with that version alone:
// what speaks another one in its name is a proxy like this before it.
var habits = map[string]struct {
	habit
	only otr.Version
}{
	"http://mcabber.com/caps":        {habit{plainText, hypertext}, 0},
	"http://profanity-im.github.io":  {habit{plainText, plainText}, otr.V2},
	"https://profanity-im.github.io": {habit{plainText, plainText}, otr.V2},
	"https://poez.io":                {habit{plainText, hypertext}, otr.V2},
	"http://pidgin.im/":              {habit{hypertext, hypertext}, 0},
	"http://bitlbee.org/xmpp/caps":   {habit{hypertext, hypertext}, 0},
}

// KnownProgram is the name of a program whose habits are known, "" for any other.
func KnownProgram(name []byte) string {
	for _, known := range programs {
		if string(name) == known {
			return known
		}
	}
	return ""
}

var programs = slices.Collect(maps.Keys(habits))

// formatOf is how a session's program writes and reads. It is known by its name, or
// by a text of its own that cannot be HTML.
func (c *conversation) formatOf(s *session) habit {
	h := habit{}
	if known, ok := habits[c.a.programs[s.jid]]; ok && (known.only == 0 || known.only == s.Version) {
		h = known.habit
	}
	if s.plain {
		h.writes = plainText
	}
	return h
}

var (
	htmlEntity = regexp.MustCompile(`^&(?:lt|gt|amp|quot|apos|nbsp|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});`)
	anyEntity  = regexp.MustCompile(`^&(?:[A-Za-z][A-Za-z0-9]{1,30}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});`)
	htmlTag    = regexp.MustCompile(`^<(/?)(?i:(html|head|body|div|span|font|p|b|i|u|s|em|strong|a|h[1-6]|ul|ol|li|code|pre|blockquote|br|hr|img))((?:\s[^<>]*)?)(/?)>`)
	anyTag     = regexp.MustCompile(`^<(/?)([A-Za-z][A-Za-z0-9]*)((?:\s[^<>]*)?)(/?)>`)
	voidTag    = regexp.MustCompile(`^(?i:br|hr|img)$`)
	lineBreak  = regexp.MustCompile(`^(?i)<br\s*/?>`)
	address    = regexp.MustCompile(`(?i)\shref\s*=\s*(?:"([^"]*)"|'([^']*)')`)
	// noHTML is an ampersand or an angle bracket that no program which writes HTML
	// would send.
	noHTML = regexp.MustCompile(`&(?:[^A-Za-z#]|$)|<(?:[^A-Za-z/!]|$)`)
)

// fromPayload turns HTML into the text a person wrote and leaves anything else
// alone. Where the program is not known, a payload is HTML when each & begins an
// entity, each < a known tag, and there is at least one of them with its tags closed.
func fromPayload(p string, writes format) string {
	if writes == plainText || !strings.ContainsAny(p, "<&") {
		return p
	}
	tag, entity := htmlTag, htmlEntity
	if writes == hypertext {
		tag, entity = anyTag, anyEntity
	}
	var plain strings.Builder
	open := map[string]int{}
	link, linked := "", 0 // the address of the link that is open, and where its text begins
	for i := 0; i < len(p); {
		switch p[i] {
		case '&':
			m := entity.FindString(p[i:])
			if m == "" {
				if writes != hypertext {
					return p
				}
				m = "&"
			}
			plain.WriteString(strings.ReplaceAll(html.UnescapeString(m), "\u00a0", " "))
			i += len(m)
		case '<':
			m := tag.FindStringSubmatch(p[i:])
			if m == nil {
				if writes != hypertext {
					return p
				}
				plain.WriteByte('<')
				i++
				continue
			}
			name := strings.ToLower(m[2])
			switch {
			case lineBreak.MatchString(m[0]):
				plain.WriteByte('\n')
			case voidTag.MatchString(name) || m[4] == "/":
			case m[1] == "/":
				open[name]--
				if name == "a" && link != "" {
					if text := plain.String()[linked:]; text != link && "mailto:"+text != link {
						plain.WriteString(" (" + link + ")") // it leads elsewhere than it says
					}
					link = ""
				}
			default:
				open[name]++
				if at := address.FindStringSubmatch(m[3]); name == "a" && at != nil {
					link, linked = html.UnescapeString(at[1]+at[2]), plain.Len()
				}
			}
			i += len(m[0])
		default:
			j := i + 1
			for j < len(p) && p[j] != '&' && p[j] != '<' {
				j++
			}
			plain.WriteString(p[i:j])
			i = j
		}
	}
	for _, n := range open {
		if n != 0 && writes != hypertext {
			return p
		}
	}
	return plain.String()
}
