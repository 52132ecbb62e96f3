package main

import (
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugeRoom is how much of the heap comes in huge pages, in bytes: nearly four of
// the arenas of 64 MiB that the Go runtime takes from the system, more than what
// a mount's heap is held to.
const (
	hugeRoom = 252 << 20
	arena    = 64 << 20
)

// hugeHeap has the heap of a process that decodes or compresses much come in
// huge pages, where the system gives them to those who ask (as Linux does unless
// transparent_hugepage/enabled says never). The Go runtime has no option for it,
// and fills the room that was in use before anything behind it. Page faults in
// pages of 4 KiB were a third of what a mount does for its first build, and on
// a virtual machine with shadow page tables two thirds: 64 MiB took 210 ms there,
// and 4 so, or 170 where the host had not given the memory yet. Decoded records
// have an arena of their own (package arena), with huge pages as well.
func hugeHeap() {
	// Where addresses are limited (ulimit -v), or memory is not overcommitted, the
	// runtime would end the process.
	var as unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_AS, &as) != nil || as.Cur != unix.RLIM_INFINITY {
		return
	}
	probe, err := unix.Mmap(-1, 0, 2*hugeRoom, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return
	}
	_ = unix.Munmap(probe)
	percent := debug.SetGCPercent(-1) // once is enough
	room := make([]byte, hugeRoom)
	at := uintptr(unsafe.Pointer(unsafe.SliceData(room)))
	from := at &^ (arena - 1)
	// An error means small pages.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, at+hugeRoom-from, unix.MADV_HUGEPAGE)
	runtime.KeepAlive(room)
	debug.FreeOSMemory()
	debug.SetGCPercent(percent)
}
