// Keeps WIDTH goroutines busy for SECONDS: HOW is run (programs, over and over) or spin (nothing at all).
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	width, _ := strconv.Atoi(os.Args[1])
	seconds, _ := strconv.Atoi(os.Args[2])
	var made atomic.Int64
	var group sync.WaitGroup
	never := make(chan bool)
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	for n := 0; n < width; n++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for time.Now().Before(end) {
				if os.Args[3] == "run" {
					_ = exec.Command(os.Args[4], os.Args[5:]...).Run()
					made.Add(1)
					continue
				}
				select {
				case <-never:
				default:
				}
			}
		}()
	}
	group.Wait()
	fmt.Printf("{\"count\": %d}\n", made.Load())
}
