// Command add-devices adds NVIDIA's nodes to linux.devices of the specification that it reads from standard input, and
// writes it to standard output.
package main

import (
	"encoding/json"
	"log"
	"os"
)

func main() {
	specification := map[string]any{}
	if err := json.NewDecoder(os.Stdin).Decode(&specification); err != nil {
		log.Fatal("add-devices: standard input: ", err)
	}
	linux, isThere := specification["linux"].(map[string]any)
	if !isThere {
		linux = map[string]any{}
		specification["linux"] = linux
	}
	devices, _ := linux["devices"].([]any)
	for _, node := range []struct {
		path  string
		minor int
	}{{"/dev/nvidiactl", 255}, {"/dev/nvidia0", 0}} {
		devices = append(devices, map[string]any{"path": node.path, "type": "c", "major": 195, "minor": node.minor})
	}
	linux["devices"] = devices
	if err := json.NewEncoder(os.Stdout).Encode(specification); err != nil {
		log.Fatal("add-devices: standard output: ", err)
	}
}
