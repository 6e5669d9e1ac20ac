#!/bin/sh
date >> "$CLAUDE_CONFIG_DIR/notes"
