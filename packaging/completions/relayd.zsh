#compdef relayd

_relayd_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _RELAYD_COMPLETE=complete_zsh relayd)
}

compdef _relayd_completion relayd
