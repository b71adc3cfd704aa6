package page

import (
	"fmt"
	"net/http"
	"time"
)

const (
	liveTick  = 20 * time.Second       // so that a connection that is gone is noticed
	liveWrite = 10 * time.Second       // for one line
	livePause = 200 * time.Millisecond // between two, whatever happens
)

// live tells an open page that something has changed, as server-sent events (WHATWG
// HTML, section 9.2); what, the page finds out by itself.
func (p *Page) live(w http.ResponseWriter, r *http.Request, v *visitor) {
	changes, stop := p.watch()
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Time{}) // a page may be open for long
	say := func(line string) bool {
		c.SetWriteDeadline(time.Now().Add(liveWrite))
		if _, err := fmt.Fprint(w, line+"\n\n"); err != nil {
			return false
		}
		return c.Flush() == nil
	}
	tick := time.NewTicker(liveTick)
	defer tick.Stop()
	for ok := say(": hello"); ok; {
		select {
		case <-r.Context().Done():
			return
		case <-p.ctx.Done():
			return
		case <-v.left:
			return
		case <-tick.C:
			if v.over(p.doors.clock()) {
				return
			}
			ok = say(": still here")
		case <-changes:
			select {
			case <-v.left: // of two that have come, this one counts
				return
			default:
			}
			ok = say("data: changed")
			select {
			case <-time.After(livePause):
			case <-r.Context().Done():
				return
			case <-p.ctx.Done():
				return
			}
		}
	}
}
