// Package state is the state directory: held by one process, of a known format, with its private
// keys encrypted where there is a passphrase, and copied whole into a backup. Files are 0600, and
// written atomically.
//
// Owned here: the lock of the directory, and the identity that opens encrypted files. What stands
// in a file is the business of whoever keeps it.
package state
