package control

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Notice is something to tell a person, with what its words are made of. What is a name of the
// catalogue; what a sentence does not name is left out.
type Notice struct {
	What        string
	Contact     string
	Fingerprint string   // theirs, as people read it
	Own         string   // one's own
	Others      []string // further ones of theirs
	Version     int      // of OTR
	Spoken      string   // versions of OTR that they speak
	Allowed     string   // that the rules allow
	Question    string
	N           int  // messages
	Kept        bool // what could not be read is sent again
	Told        bool // their program was told
	Within      time.Duration
	Why         Why
	Texts       []string // of messages, as far as they are known
}

// A Why is why a message was not sent.
type Why struct {
	Cause       string // a name of the catalogue
	Contact     string
	Reason      string // the household's own, for a rule of theirs
	Unprotected string // what OTR cannot protect, by name
}

// catalogue is what the layer of OTR says to people, by what there is to tell. The names in
// braces are replaced by the notice's arguments. A key that goes on after another one and a dash,
// such as "idle-open", has the words for a special case of that notice.
var catalogue = map[string]string{
	"asked":      "Asked {contact} for a private conversation.",
	"key-making": "Your OTR key is still being made; try again in a moment.",
	"full":       "Not sent: too many messages already wait for a private conversation with {contact}. Wait for it, or take them back with !otr drop.",

	"over":       "The private conversation with {contact} is over.",
	"new-key":    "The private conversation with {contact} was ended: this account has a new OTR key, which they will be told has changed.",
	"idle":       "The private conversation with {contact} was ended because nobody used it for long. Your next message asks for a new one first.",
	"idle-open":  "The private conversation with {contact} was ended because nobody used it for long. Write !otr start to be private again, or !otr end to go on without.",
	"ended":      "{contact} has ended the private conversation. Your next message asks for a new one first.",
	"ended-open": "{contact} has ended the private conversation. Write !otr start to be private again, or !otr end to go on without.",

	"started": "Private conversation with {contact} started{older}; their key is verified.",
	"unverified": "Private conversation with {contact} started{older}, but the rules let nothing leave before you know that it is them. " +
		"Ask them by another way, such as the phone, to read you their fingerprint, and write !otr verify and what they read out; yours, for them, is {own}. " +
		"Or ask what only they know: !otr smp ask QUESTION | ANSWER. What you write waits, and goes the moment it is settled. The key here has the fingerprint {fingerprint}.",
	"not-verified": "Private conversation with {contact} started{older}; not verified. Their fingerprint: {fingerprint}. " +
		"!otr verify says how to make sure that it is them; or ask what only they know: !otr smp ask QUESTION | ANSWER.",
	"older": " (OTR version 2, the older one: all their program has)",
	"key-changed": "The key of {contact} has CHANGED. New: {fingerprint}. Known before: {others}. Nothing is sent until you decide. " +
		"Ask them by another way, such as the phone, to read you their fingerprint, and write !otr verify and what they read out; or accept the new key without that: !otr send {fingerprint}",
	"device": "Another device of {contact} has joined, with a key that is not verified: {fingerprint}. " +
		"Your messages stay with the verified device. If they use the other one now, compare that fingerprint with them and write !otr verify FINGERPRINT.",
	"weaker": "Attention: this conversation with {contact} uses OTR version {version}, although version 3 was spoken with them before. " +
		"Unless they changed to another program, somebody between you may have weakened it: ask them. (A rule with \"versions: [3]\" forbids it.)",
	"forsaken": "Nothing is sent any more to the other keys known of {contact}, which nobody has verified: {others}.",

	"more":      "There is more of this from {contact}. For ten minutes I do not show you each one.",
	"strangers": "Many people you have not written to are asking for you now. For an hour I do not show you each of them.",

	"damaged":     "{contact} sent an encrypted message that cannot be read: it is of an OTR version other than 2 and 3, or damaged.",
	"dropped":     "What {contact} sends without encryption is not shown, as the rules say (clear: drop).",
	"wanted-away": "{contact} asked for a private conversation while you were away. Write to them, or !otr start, to begin one.",
	"wanted":      "{contact}, who is not among your contacts, asked for a private conversation. Write to them, or !otr start, to begin one.",
	"old-only":    "The program of {contact} speaks only an OTR version that protects nobody; it needs version 2 or 3.",
	"other-only":  "The program of {contact} speaks OTR version {spoken} only, and the rules here allow version {allowed}.",
	"forbidden":   "{contact} tried to begin a private conversation with a version of OTR that the rules forbid.",
	"reflected":   "A private conversation with {contact} was refused: the other side presented your own key. Somebody may be playing your messages back to you.",

	"unread":               "{contact} could not read a message of yours: the private conversation had ended. {again}",
	"unread-last":          "{contact} could not read your last message: the private conversation had ended. It is sent again if a new one begins within a minute; else write it again.",
	"unread-again":         "{contact} could not read your last message either. Write !otr start to ask for a new private conversation. {again}",
	"unread-anew":          "{contact} could not read your last message; asking for a new private conversation. {again}",
	"again":                "It is sent again then.",
	"again-not":            "It is not kept any more: write it again.",
	"lost":                 "{contact} could not read some older messages of yours, and they are not kept any more. Write them again.",
	"unreadable":           "1 message of {contact} could not be read: their keys are gone here. Ask them to send it again.",
	"unreadable-many":      "{n} messages of {contact} could not be read: their keys are gone here. Ask them to send them again.",
	"unreadable-told":      "1 message of {contact} could not be read: their keys are gone here. Their program was told, so that it says so or sends again.",
	"unreadable-many-told": "{n} messages of {contact} could not be read: their keys are gone here. Their program was told, so that it says so or sends again.",

	"waits-moment": "Your message waits for a moment: a new private conversation with {contact} is being settled.",
	"waits-cause":  "Your message waits. {why}",
	"waits-away":   "Your message waits: {contact} is not online. It is sent as soon as they come; if they do not within {within}, it comes back to you.",
	"waits":        "Your message waits for a private conversation with {contact} and is sent as soon as they answer with OTR. If they do not within {within}, it comes back to you.",
	"unreached":    "The server says that {contact} cannot be reached now. Your message still waits, and is sent as soon as they answer.",
	"sent":         "Sent: the message that waited.",
	"sent-many":    "Sent: the {n} messages that waited.",

	"smp-given-up": "The comparison of secrets with {contact} was given up, for the conversation goes on with another device. Begin it again.",
	"smp-asked":    "{contact} wants to know whether it is you, and asks: \"{question}\" Answer with !otr smp answer ANSWER, or !otr smp abort.",
	"smp-secret":   "{contact} wants to compare a secret that only you two know. Write !otr smp answer SECRET, or !otr smp abort.",
	"smp-answered": "Your answer was right: {contact} knows now that it is you. This tells you nothing about them: ask a question of your own with !otr smp ask QUESTION | ANSWER.",
	"smp-same":     "The secrets are the same: the key of {contact} is verified.",
	"smp-differ":   "The secrets are NOT the same. Either one of you mistyped, or somebody else is in between. Try once more (!otr smp start SECRET, !otr smp ask QUESTION | ANSWER), or compare fingerprints by another way (!otr verify).",
	"smp-aborted":  "The comparison of secrets with {contact} was given up. (Some programs do so when the secrets are not the same.)",
	"smp-cheated":  "The comparison of secrets with {contact} failed: their program sent what an honest one does not.",
}

// whys tell a person why a message was not sent, by cause, and what to do now.
var whys = map[string]string{
	"expired":     "Not sent: {contact} did not answer with OTR, so the message could not be encrypted. Nothing of it left this machine. Try again when they are online with a client that has OTR.",
	"queue-full":  "Not sent: too many messages already wait for a private conversation with {contact}. Wait for it, or take them back with !otr drop.",
	"memory":      "Not sent: otrproxy has no memory left for messages that wait for a private conversation. Try again later; messages in private conversations go on.",
	"finished":    "Not sent: {contact} has ended the private conversation. Write !otr start to be private again, or !otr end to go on without.",
	"key-changed": "Not sent: the key of {contact} is not the one known before. Compare fingerprints with them (!otr verify says how); or accept the new key with !otr send FINGERPRINT.",
	"unverified":  "Not sent: the rules demand that the key of {contact} is verified first. Compare fingerprints with them (!otr verify says how), or ask what only they know: !otr smp ask QUESTION | ANSWER.",
	"no-key":      "Not sent: this account has no usable OTR key; the log of otrproxy says why.",
	"engine":      "Not sent: the message could not be encrypted.",
	"unprotected": "Not sent: OTR can encrypt text only, and the rules demand encryption for {contact}.",
	"shutdown":    "Not sent: otrproxy is being stopped. Send it again once it runs.",
	"dropped":     "Not sent: taken back on your request.",
	"bounced":     "Not sent: the server says that {contact} cannot be reached.",
	"client-otr":  "Not sent: your client speaks OTR itself, which otrproxy already does for you. Turn OTR off in the client, or set the policy never for {contact}.",
	"too-large":   "Not sent: encrypted, this text would be too large for the server. Send it in parts.",
	"upstream":    "Not sent: the connection to the server was lost. Send it again once you are connected.",
	"unread":      "Sent, but the program of {contact} said that it could not read it: its private conversation had ended. Write it again.",
	"room":        "Not sent: you are in the room {contact} now, and OTR cannot protect what is said in a room to one person.",
	"not-in-room": "Not sent: you are not in the room {contact}. Join it first.",
	"stranger":    "Not sent: you logged in with another password than the one known here, so nothing of yours is encrypted yet. The message of otrproxy says what to do.",
	"uncertain":   "This may not have been sent: the connection to the server was lost before it had confirmed it. Ask {contact} whether they have it, or send it again.",
}

// String is the sentence.
func (w Why) String() string {
	sentence := strings.ReplaceAll(whys[w.Cause], "{contact}", w.Contact)
	switch {
	case w.Unprotected != "":
		whom := ""
		if strings.Contains(w.Contact, "@") {
			whom = " for " + w.Contact
		}
		sentence = "Not sent: OTR can encrypt text only, so it cannot protect " + w.Unprotected + ", and the rules demand encryption" + whom + "."
	case sentence == "":
		sentence = "Not sent."
	}
	return Because(sentence, w.Reason)
}

// Because adds to a sentence the reason that the household gives for its rule, if any.
func Because(sentence, reason string) string {
	if reason == "" {
		return sentence
	}
	return sentence + " The reason for this rule: " + reason
}

// String is the line that is shown.
func (n Notice) String() string {
	name := n.What
	switch n.What {
	case "not-sent":
		return n.notSent()
	case "sent":
		if n.N > 1 {
			name += "-many"
		}
	case "unreadable":
		if n.N > 1 {
			name += "-many"
		}
		if n.Told {
			name += "-told"
		}
	}
	older, again := "", catalogue["again-not"]
	if n.Version == 2 {
		older = catalogue["older"]
	}
	if n.Kept {
		again = catalogue["again"]
	}
	// What others have written stands in its place at once, so that nothing in it is taken for
	// a place of ours.
	return strings.NewReplacer("{contact}", n.Contact, "{fingerprint}", n.Fingerprint, "{own}", n.Own, "{others}", strings.Join(n.Others, "; "), "{version}", strconv.Itoa(n.Version),
		"{spoken}", n.Spoken, "{allowed}", n.Allowed, "{question}", n.Question, "{n}", strconv.Itoa(n.N), "{within}", spelled(n.Within), "{older}", older, "{again}", again,
		"{why}", strings.TrimPrefix(n.Why.String(), "Not sent: ")).Replace(catalogue[name])
}

const (
	mostQuoted  = 3  // messages whose beginnings stand in one line
	quotedRunes = 60 // of each
)

// notSent is the line that says what was not sent, and why.
func (n Notice) notSent() string {
	sentence := n.Why.String()
	var quotes []string
	for _, t := range n.Texts[:min(len(n.Texts), mostQuoted)] {
		quotes = append(quotes, Quoted(t))
	}
	if len(quotes) == 0 && n.N == 1 {
		return sentence
	}
	what := strings.Join(quotes, ", ")
	if n.N > 1 {
		of := fmt.Sprintf("%d messages", n.N)
		switch {
		case len(quotes) == 0:
			what = of
		case n.N > len(quotes):
			what = of + ", among them " + what
		default:
			what = of + ", " + what
		}
	}
	if why, ok := strings.CutPrefix(sentence, "Not sent: "); ok {
		return "Not sent: " + what + ". Why: " + why
	}
	return "About " + what + ": " + sentence
}

// Quoted is how a message begins, in quotes.
func Quoted(text string) string {
	words := strings.Join(strings.Fields(text), " ")
	if r := []rune(words); len(r) > quotedRunes {
		words = string(r[:quotedRunes]) + "…"
	}
	return `"` + words + `"`
}

// spelled is a duration as people say it.
func spelled(d time.Duration) string {
	for _, unit := range []struct {
		of   time.Duration
		name string
	}{{time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		switch n := d / unit.of; {
		case d%unit.of != 0 || n == 0:
		case n == 1:
			return "1 " + unit.name
		default:
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return d.String()
}
