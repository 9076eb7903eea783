"""Reads media files onto the grid: decodes them, puts video and audio on one clock, computes log-mel.

Here a picture is a decoded image of the file, and a frame is what the grid shows at one slot.
"""
