package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The exit statuses of mount(8).
const (
	mountUsage  = 1
	mountFailed = 32
)

// mountHelper is mount.gofs, which mount(8) runs for a line of /etc/fstab with
// the type gofs, as "mount.gofs STORE DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o
// OPTIONS]". It reports false under any other name.
func mountHelper(args []string) (status int, ok bool) {
	if len(args) == 0 || filepath.Base(args[0]) != "mount.gofs" {
		return 0, false
	}
	list, err := helperArgs(args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "mount.gofs: %v\n", err)
		return mountUsage, true
	}
	if list == nil {
		return exitOK, true
	}
	switch run(list) {
	case exitOK:
		return exitOK, true
	case exitUsage:
		return mountUsage, true
	}
	return mountFailed, true
}

// helperArgs makes the arguments of gofs; nil where nothing is to be done.
func helperArgs(args []string) ([]string, error) {
	var names, options []string
	var sloppy, fake, verbose bool
	for i := 0; i < len(args); i++ {
		a := args[i]
		if !strings.HasPrefix(a, "-") || a == "-" {
			names = append(names, a)
			continue
		}
		for k := 1; k < len(a); k++ {
			switch c := a[k]; c {
			case 's':
				sloppy = true
			case 'f':
				fake = true
			case 'v':
				verbose = true
			case 'n', 'r', 'w':
			case 'o', 'N', 't':
				value := a[k+1:]
				if value == "" {
					if i++; i == len(args) {
						return nil, fmt.Errorf("-%c needs a value", c)
					}
					value = args[i]
				}
				if c == 'o' {
					options = append(options, strings.Split(value, ",")...)
				}
				if c == 'N' {
					return nil, fmt.Errorf("-N %s: not into another namespace", value)
				}
				k = len(a)
			default:
				return nil, fmt.Errorf("unknown option -%c", c)
			}
		}
	}
	if len(names) != 2 {
		return nil, fmt.Errorf("usage: mount.gofs STORE DIR [-o store=DIR,hot=tmpfs|DIR[:SIZE],io=cache|passthrough,decoded-cache=SIZE,log=FILE,allow_other,nosupervise]")
	}
	// mount(8) makes a path of the source if that is there: "gofs" becomes /gofs
	// where it runs in /.
	if filepath.Clean(names[0]) == filepath.Clean(names[1]) {
		names[0] = "none"
	}
	flags, err := helperFlags(names[0], options, sloppy)
	if err != nil || fake {
		return nil, err
	}
	if !verbose {
		flags = append(flags, "--quiet")
	}
	return append(append([]string{"mount"}, flags...), "--", names[1]), nil
}

// helperFlags makes flags of gofs mount of the options of mount(8).
func helperFlags(source string, options []string, sloppy bool) ([]string, error) {
	store := source
	if !strings.Contains(source, "/") { // "none", "gofs": the store that is the default
		store = ""
	}
	var flags []string
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		switch {
		case name == "store":
			store = value
		case name == "hot", name == "io", name == "decoded-cache", name == "log":
			flags = append(flags, "--"+name+"="+value)
		case option == "allow_other":
			flags = append(flags, "--allow-other")
		case option == "nosupervise":
			flags = append(flags, "--supervise=false")
		case genericOption(name) || sloppy:
		default:
			return nil, fmt.Errorf("unknown option %q (store=, hot=, io=, decoded-cache=, log=, allow_other and nosupervise are known)", option)
		}
	}
	if store != "" {
		flags = append(flags, "--store="+store)
	}
	return flags, nil
}

// generic are options that mean nothing to this file system, or what it does
// anyway: it is read-only, nosuid and nodev, and never changes a time.
var generic = map[string]bool{
	"": true, "defaults": true, "auto": true, "noauto": true, "user": true, "nouser": true, "users": true, "owner": true, "group": true,
	"nofail": true, "_netdev": true, "_rnetdev": true, "comment": true, "rw": true, "ro": true, "exec": true, "suid": true, "nosuid": true, "dev": true, "nodev": true,
	"sync": true, "async": true, "dirsync": true, "atime": true, "noatime": true, "diratime": true, "nodiratime": true, "relatime": true,
	"norelatime": true, "strictatime": true, "nostrictatime": true, "lazytime": true, "nolazytime": true, "mand": true, "nomand": true,
	"silent": true, "loud": true, "iversion": true, "noiversion": true,
}

func genericOption(name string) bool {
	return generic[name] || strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-")
}
