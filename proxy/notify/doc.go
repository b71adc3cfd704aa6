// Package notify tells of what has happened: pages that are open, and the command of the
// configuration (notify). Neither is told what anybody wrote.
//
// Owned here: who watches, and what was told lately.
package notify
