package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// TestHugeHeap looks whether what is allocated next may come in huge pages.
func TestHugeHeap(t *testing.T) {
	hugeHeap()
	b := make([]byte, 8<<20)
	defer runtime.KeepAlive(b)
	if flags := memoryFlags(t, uintptr(unsafe.Pointer(&b[len(b)/2]))); !slices.Contains(flags, "hg") {
		t.Errorf("the memory has the flags %q, not hg", flags)
	}
}

// memoryFlags are those that the kernel lists of the mapping at an address.
func memoryFlags(t *testing.T, at uintptr) []string {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inside := false
	for s := bufio.NewScanner(f); s.Scan(); {
		var from, to uintptr
		if _, err := fmt.Sscanf(s.Text(), "%x-%x ", &from, &to); err == nil {
			inside = from <= at && at < to
		}
		if flags, ok := strings.CutPrefix(s.Text(), "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	t.Fatal("no mapping has the address")
	return nil
}
