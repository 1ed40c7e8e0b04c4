"""What is kept, and where: the engine contract and the engines that pass it."""
