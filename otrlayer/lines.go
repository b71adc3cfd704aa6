package otrlayer

import (
	"container/list"
	"time"
)

// Lines that others cause are bounded here, in one place: so many of a topic and a contact
// in a while, and so many people the person has not written to in an hour. What the person
// asks for, and what becomes of their own messages, is always told.

// A topic is what a line that others cause is about.
type topic uint8

const (
	topicAsked      topic = iota // they ask for a private conversation
	topicAway                    // they did while nobody was there
	topicVersion                 // they speak a version that is not spoken here
	topicDamaged                 // what they sent is no message that could be read
	topicUnreadable              // nor is this one, for its keys are gone
	topicReflected               // they presented our own key
	topicDropped                 // what they send in clear is not shown
	topicComplaint               // they could not read what was sent
	topicPrivate                 // a private conversation has begun
	topicKey                     // their key is another one, or there is one more
	topicWeaker                  // they speak an older version than before
	topicEnded                   // they have ended it
	topicComparing               // they compare a secret
	topics
)

// mostLines is how many lines of a topic one contact may cause in linesFor. Strangers may
// cause one of each.
var mostLines = [topics]uint8{
	topicAsked:      1,
	topicAway:       1,
	topicVersion:    1,
	topicDamaged:    1,
	topicUnreadable: 20,
	topicReflected:  1,
	topicDropped:    1,
	topicComplaint:  10,
	topicPrivate:    20,
	topicKey:        10,
	topicWeaker:     2,
	topicEnded:      20,
	topicComparing:  20,
}

const (
	linesFor = 10 * time.Minute
	// maxStrangers is about how many people the person has not written to lines are told
	// in an hour.
	maxStrangers = 30
	// maxToldOf is of how many contacts it is known what was told.
	maxToldOf = 4096
)

// A toldOf is what was told of one contact in the last while.
type toldOf struct {
	contact string
	since   time.Time
	lines   [topics]uint8
}

type lines struct {
	of         map[string]*list.Element
	order      list.List // of *toldOf, by since
	hour       time.Time // since when strangers are counted
	strangers  int
	suppressed uint64
}

// tell shows a line that a contact has caused, unless there were too many, and reports
// whether it did.
func (c *conversation) tell(now time.Time, t topic, n Notice) bool {
	return c.mayTell(now, t) && c.a.notice(n)
}

// mayTell reports whether a line that a contact causes may be shown now, and counts it.
func (c *conversation) mayTell(now time.Time, t topic) bool {
	l := &c.a.lines
	for e := l.order.Front(); e != nil && now.Sub(e.Value.(*toldOf).since) >= linesFor; e = l.order.Front() {
		l.forget(e)
	}
	e := l.of[c.contact]
	if e == nil {
		if c.newcomer && !c.introduced(now) {
			l.suppressed++
			return false
		}
		if len(l.of) >= maxToldOf {
			l.forget(l.order.Front())
		}
		if l.of == nil {
			l.of = map[string]*list.Element{}
		}
		e = l.order.PushBack(&toldOf{contact: c.contact, since: now})
		l.of[c.contact] = e
	}
	told := e.Value.(*toldOf)
	most := mostLines[t]
	if c.stranger {
		most = 1
	}
	switch {
	case told.lines[t] < most:
		told.lines[t]++
		return true
	case most > 1 && told.lines[t] == most: // what is different each time does not end without a word
		told.lines[t]++
		c.a.notice(c.about(SayMore))
	}
	l.suppressed++
	return false
}

func (l *lines) forget(e *list.Element) {
	delete(l.of, l.order.Remove(e).(*toldOf).contact)
}

// introduced reports whether one more person whom nobody has written to may be told of in
// this hour. Of the first one too many it is told that there are more.
func (c *conversation) introduced(now time.Time) bool {
	l := &c.a.lines
	if l.hour.IsZero() || now.Sub(l.hour) >= time.Hour {
		l.hour, l.strangers = now, 0
	}
	l.strangers++
	if l.strangers == maxStrangers+1 {
		c.a.notice(c.about(SayStrangers))
	}
	return l.strangers <= maxStrangers
}
