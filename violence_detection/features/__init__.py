"""Step 3: the features of every clip, extracted once and cached."""
