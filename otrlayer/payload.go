package otrlayer

import (
	"html"
	"regexp"
	"strings"
)

// What stands inside an OTR data message is text for some clients and HTML for
// others (rules.md X3 of the field: Pidgin and bitlbee escape on sending and strip
// tags on receiving, mcabber unescapes, Profanity takes everything as it is).

// toPayload escapes what a receiver of HTML would take for markup, so that
// nothing is lost with any client; at worst it looks odd.
func toPayload(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

var (
	htmlEntity = regexp.MustCompile(`^&(?:lt|gt|amp|quot|apos|nbsp|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});`)
	htmlTag    = regexp.MustCompile(`^<(/?)(?i:(html|head|body|div|span|font|p|b|i|u|s|em|strong|a|h[1-6]|ul|ol|li|code|pre|blockquote|br|hr|img))(?:\s[^<>]*)?(/?)>`)
	voidTag    = regexp.MustCompile(`^(?i:br|hr|img)$`)
	lineBreak  = regexp.MustCompile(`(?i)<br\s*/?>`)
)

// fromPayload turns HTML into the text a person wrote and leaves anything else
// alone. A payload is HTML when each & begins an entity, each < a known tag, and
// there is at least one of them with its tags closed.
func fromPayload(p string) string {
	var plain strings.Builder
	found := false
	open := map[string]int{}
	for i := 0; i < len(p); {
		switch p[i] {
		case '&':
			m := htmlEntity.FindString(p[i:])
			if m == "" {
				return p
			}
			found = true
			plain.WriteString(strings.ReplaceAll(html.UnescapeString(m), "\u00a0", " "))
			i += len(m)
		case '<':
			m := htmlTag.FindStringSubmatch(p[i:])
			if m == nil {
				return p
			}
			found = true
			name := strings.ToLower(m[2])
			switch {
			case lineBreak.MatchString(m[0]):
				plain.WriteByte('\n')
			case voidTag.MatchString(name) || m[3] == "/":
			case m[1] == "/":
				open[name]--
			default:
				open[name]++
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
		if n != 0 {
			return p
		}
	}
	if !found {
		return p
	}
	return plain.String()
}
