"""Reads media files onto the grid: decodes them, puts video and audio on one clock, computes log-mel.

Here a picture is a decoded image of the file, slot k is the time k / fps of the grid, and a frame is the
picture on screen at a slot.
"""
